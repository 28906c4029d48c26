#!/usr/bin/env bash
# PyTorch 2.13.0 on a CPU with AVX-512 that is not Intel's: float32 matrix products run at half of the speed that the same
# build reaches through its own oneDNN.
#
# Documented: torch.backends.cpu.get_cpu_capability() says "AVX512", and both MKL and oneDNN (mkldnn) are built in.
# Seen on an AMD EPYC (family 26), one thread, 256x768x768: F.linear 108 GFLOP/s, the same layer as a tensor of oneDNN's
# 236 GFLOP/s, conversions of its input and output included. In bfloat16, where PyTorch itself asks oneDNN, F.linear is fast.
# The reason is that MKL takes its AVX-512 kernels on Intel's processors only. A network of SAC's size spends three quarters of
# a training step in these products, so that JAX, which does not use MKL, looks twice as fast as PyTorch on such a machine.
#
# Takes a minute; PyTorch's CPU build has 200 MB. Exit status 0: this is still so, or the processor is another.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6

"$folder/venv/bin/python" - <<'EOF'
import time

import torch
from torch.nn import functional as F

torch.set_num_threads(1)
capability = torch.backends.cpu.get_cpu_capability()
vendor = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("vendor_id")), "unknown")
print("torch", torch.__version__, capability, vendor)
if capability != "AVX512" or vendor in ("GenuineIntel", "unknown"):
    print("Another kind of processor: nothing to see here.")
    raise SystemExit


def gflops(function, operations):
    function()
    best = min(timed(function) for _ in range(30))
    return operations / best / 1e9


def timed(function):
    start = time.process_time()
    function()
    return time.process_time() - start


batch, width = 256, 768
inputs, weight, bias = torch.randn(batch, width), torch.randn(width, width), torch.randn(width)
theirs = weight.to_mkldnn(), bias.to_mkldnn()
operations = 2 * batch * width * width
with torch.no_grad():
    plain = gflops(lambda: F.linear(inputs, weight, bias), operations)
    onednn = gflops(lambda: F.linear(inputs.to_mkldnn(), *theirs).to_dense(), operations)
    difference = (F.linear(inputs.to_mkldnn(), *theirs).to_dense() - F.linear(inputs, weight, bias)).abs().max().item()
print(f"F.linear {plain:.0f} GFLOP/s, by oneDNN {onednn:.0f} GFLOP/s, largest difference {difference:.1e}")
assert difference < 1e-3
assert onednn > 1.5 * plain
print("As described: the product runs at half speed beside a faster one.")
EOF
