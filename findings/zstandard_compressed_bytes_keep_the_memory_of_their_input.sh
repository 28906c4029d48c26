#!/usr/bin/env bash
# zstandard 0.25.0 (the Python binding): what `compress()` returns keeps a block of memory as large as its input.
#
# Documented: `ZstdCompressor.compress(data)` returns the compressed data as `bytes`. `len()` and `sys.getsizeof()` give the small
# size, from which a program that keeps many of them, such as a replay buffer of images, works out what it needs.
# Seen: 20 000 compressed images of 4 x 84 x 84 bytes whose sizes sum up to 1 MB take some 87 MB of the
# process, and 2 MB once each is copied. The result is allocated for the worst case and shrunk in place, which
# leaves the rest of the block to it.
#
# Takes a minute and downloads some 25 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zstandard==0.25.0 numpy==2.2.6

cat > "$folder/measure.py" <<'PYTHON'
import sys

import numpy as np
import zstandard


def resident():
    """Bytes of the process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


compressor, image, kept = zstandard.ZstdCompressor(level=3), np.zeros((4, 84, 84), np.uint8), []
before = resident()
for number in range(20_000):
    image.flat[:4] = np.frombuffer(np.uint32(number).tobytes(), np.uint8)
    compressed = compressor.compress(image)
    kept.append(bytes(memoryview(compressed)) if sys.argv[1] == "copied" else compressed)
print(sum(map(sys.getsizeof, kept)), resident() - before)
PYTHON

"$folder/venv/bin/python" -c "import zstandard; print('zstandard', zstandard.__version__, zstandard.backend)"
for what in returned copied; do
    read -r said taken < <("$folder/venv/bin/python" "$folder/measure.py" "$what")
    echo "$what: getsizeof says $((said / 1000)) kB, the process has grown by $((taken / 1000)) kB"
    case "$what" in
        returned) test "$taken" -gt $((20 * said)) ;;
        copied) test "$taken" -lt $((5 * said)) ;;
    esac
done
echo "As described: the objects hold many times the memory that they report, until they are copied."
