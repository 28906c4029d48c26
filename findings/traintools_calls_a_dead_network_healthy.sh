#!/usr/bin/env bash
# traintools 0.6.2: its PlasticityProbe gives a network whose neurons are all dead the full score, "All layers healthy".
#
# Documented: "PlasticityProbe: Is my network losing the ability to learn?", measured on the layers' activations.
# Seen: a network whose activations are functions (`F.relu(self.first(x))`), as in most examples of PyTorch, has no layer
# that the probe looks at. It says 1.000 and "All layers healthy" of it, where the same weights with `nn.ReLU()` score 0.000
# with 100 % dormant units. The score of no layers is 1, and the number of layers is not printed.
#
# Takes a minute or two; PyTorch's CPU build has 200 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6 traintools==0.6.2

"$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import nn
from traintools import PlasticityProbe

torch.manual_seed(0)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 64), nn.Linear(64, 2)
        nn.init.constant_(self.first.bias, -100.0)  # no input is ever large enough

    def forward(self, x):
        return self.last(F.relu(self.first(x)))


def measured(network):
    probe = PlasticityProbe(network)
    network(torch.randn(256, 4))
    return probe.measure()


functional = Functional()
modules = nn.Sequential(functional.first, nn.ReLU(), functional.last)
x = torch.randn(256, 4)
assert torch.equal(functional(x), modules(x))
print(f"traintools {version('traintools')}, torch {torch.__version__}")
print("active neurons:", int((F.relu(functional.first(x)) > 0).sum()), "of 64")
print("with F.relu: ", measured(functional))
print("with nn.ReLU:", measured(modules))
assert measured(functional).global_score == 1.0
assert "All layers healthy" in str(measured(functional))
assert measured(modules).global_score < 1e-6
print("As described: a dead network is called healthy.")
EOF
