#!/usr/bin/env bash
# PyTorch 2.13.0 on a CPU: a compiled, frozen network in bfloat16 returns zeros where its layers compute NaN.
#
# Documented (torch.relu, torch.compile): ReLU of NaN is NaN, and a compiled network computes what the network computes.
# Seen: with `torch._inductor.config.freezing` (the setting for inference that torch.compile's CPU guide recommends), a linear
# layer and its ReLU become one operation of oneDNN. In bfloat16 that operation returns 0 for NaN; in single precision, and in
# bfloat16 without freezing, the NaN is there. A policy or a value network that has diverged looks healthy: its outputs are
# finite, and the usual check for NaN in the outputs never fires.
#
# Takes two or three minutes; needs a C++ compiler; PyTorch's CPU build has 200 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6

"$folder/venv/bin/python" - <<'EOF'
import torch
import torch._inductor.config as inductor
from torch import nn

torch.set_num_threads(1)
print("torch", torch.__version__)


def lost_nans(dtype, freezing):
    torch._dynamo.reset()
    torch.manual_seed(0)
    inductor.freezing = freezing
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).to(dtype).eval()
    inputs = torch.randn(16, 64).to(dtype)
    inputs[0, 0] = float("nan")
    with torch.no_grad():
        expected, found = network(inputs), torch.compile(network)(inputs)
    assert expected[0].isnan().all() and found[1:].isfinite().all()
    n_zero = int((found[0] == 0).sum())
    print(f"{dtype}, freezing={freezing}: of 64 NaN {int(found[0].isnan().sum())} are left, {n_zero} are zero")
    return n_zero


assert lost_nans(torch.float32, True) == 0
assert lost_nans(torch.bfloat16, False) == 0
assert lost_nans(torch.bfloat16, True) == 64
print("As described: frozen in bfloat16, the network hides NaN.")
EOF
