#!/usr/bin/env bash
# PyTorch 2.13.0: a forward hook is not called if a network of the same shape was compiled before.
#
# Documented (torch.compiler, "nn.Module hooks support"): hooks that are registered before `torch.compile` is called and
# not changed afterwards are supported.
# Seen: they are called when the network is the first of its shape in the process. When another one was compiled and called
# earlier, the second network reuses its code, and a hook that was registered on the second before it was ever compiled or
# called is left out, without a warning. With two agents, or an agent and a copy of it, in one process, what records
# activations by hooks can record nothing. (The backend "eager", which is used here, needs no compiler.)
#
# Takes a minute or two; PyTorch's CPU build has 200 MB. Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.2.6

"$folder/venv/bin/python" - <<'EOF'
import torch
from torch import nn

torch.set_num_threads(1)


def network_with_hook(calls):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network[1].register_forward_hook(lambda module, inputs, output: calls.append(tuple(output.shape)))
    return network


x = torch.ones(2, 3)
print("torch", torch.__version__)

calls = []
torch.compile(network_with_hook(calls), backend="eager")(x)
print("the first compiled network of its shape: hook called", len(calls), "time(s)")
assert len(calls) == 1

torch._dynamo.reset()
plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
torch.compile(plain, backend="eager")(x)
calls = []
network = network_with_hook(calls)  # a new network: its hook is there before it is compiled
torch.compile(network, backend="eager")(x)
print("after another network of that shape:     hook called", len(calls), "time(s)")
network(x)
print("the same network without torch.compile:  hook called", len(calls), "time(s)")
assert len(calls) == 1
print("As described: the compiled network left its hook out.")
EOF
