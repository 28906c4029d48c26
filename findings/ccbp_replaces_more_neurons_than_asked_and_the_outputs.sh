#!/usr/bin/env bash
# ccbp-pytorch 0.0.3: continual backpropagation replaces ten times as many neurons as asked, outputs among them, and the wrong weights.
#
# Documented: `CCBP(optimizer, model=model)` wraps any optimizer; with `continuous=False` it is the continual backpropagation of
# Dohare et al., which replaces the share `replacement_rate` of the mature hidden neurons at each of its steps (fractions add up
# until they make a neuron), and sets the weights that lead out of a replaced neuron to 0, so that the outputs hardly change.
# Seen: 1. The fraction that has added up is also taken as the probability of replacing one more neuron. Layers of 64 have twice
# as many neurons replaced at a rate of 0.003, ten times as many at 0.0001.
# 2. Only layers whose names contain "head" or "classifier" are left out. The output of the README's own network is replaced, too,
# 16 times as often as the rate says, and what it has learned is gone: its loss is then a thousand times as high.
# 3. "The weights that lead out" are those of the next layer in the list of modules, if the sizes fit. In PPO of
# Stable-Baselines3, that list has the actor's hidden layers, the critic's, `action_net` and `value_net`. So when a neuron of the
# critic is replaced, the actor loses the weights of its own neuron with that number; the outputs of the actor's and the critic's
# new neurons keep the weights of the old ones. No warning. (2 and 3 can be avoided with `exclude_module_names` and `neuron_configs`.)
#
# Takes a few minutes; PyTorch is the larger part (its CPU build has 200 MB). Exit status 0: this is still so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet ccbp-pytorch==0.0.3 einops==0.8.2 torch-einops-utils==0.2.0 stable-baselines3==2.9.2 gymnasium==1.3.0

cd "$folder"
PYTHONWARNINGS=ignore "$folder/venv/bin/python" - <<'EOF'
from importlib.metadata import version

import torch
from ccbp_pytorch import CCBP
from stable_baselines3 import PPO
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
print(*(f"{name} {version(name)}" for name in ("ccbp-pytorch", "torch", "stable-baselines3")), sep=", ")


def network():
    """That of the README"""
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))


class Watched(CCBP):
    """Remembers which neurons are replaced: the indices of the latest step, and how many there were."""

    def compute_alpha(self, utility, age, idx):
        alpha = super().compute_alpha(utility, age, idx)
        if not hasattr(self, "replaced"):
            self.latest, self.replaced, self.asked = {}, {}, {}
        self.latest[idx] = alpha.nonzero().ravel().tolist()
        assert set(alpha.tolist()) <= {0.0, 1.0}
        self.replaced[idx] = self.replaced.get(idx, 0) + len(self.latest[idx])
        self.asked[idx] = self.asked.get(idx, 0.0) + self.replacement_rate * len(alpha)  # all of them are mature
        return alpha


print("1. Neurons replaced, of layers of 64, 64 and 1:")
ratios = {}
for rate, steps in ((0.003, 1000), (0.0001, 3000)):
    model = network()
    optimizer = Watched(torch.optim.Adam(model.parameters()), model=model, continuous=False, replacement_rate=rate, reset_interval=1,
                        maturity_steps=0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 10)).square().mean().backward()
        optimizer.step()
    for layer in range(3):
        ratios[rate, layer] = optimizer.replaced[layer] / optimizer.asked[layer]
        print(f"  replacement_rate={rate}, {steps} steps, layer {layer}: {optimizer.replaced[layer]} replaced, {optimizer.asked[layer]:.1f} asked for, "
              f"{ratios[rate, layer]:.1f} times as many")
assert all(1.8 < ratios[0.003, layer] < 2.2 and 8 < ratios[0.0001, layer] < 13 for layer in (0, 1)) and ratios[0.003, 2] > 10

print("2. The README's network learns a sum of its inputs; loss on the same 1000 examples, median before and after replacements:")
for names, which in ((("head", "classifier"), "as it comes"), (("4",), 'exclude_module_names=("4",)')):
    torch.manual_seed(1)
    model = network()
    optimizer = Watched(torch.optim.Adam(model.parameters()), model=model, continuous=False, replacement_rate=0.003, reset_interval=20,
                        maturity_steps=0, exclude_module_names=names)
    examples = torch.randn(1000, 10)

    def loss():
        with torch.no_grad():
            return (model(examples)[:, 0] - examples.sum(1)).square().mean().item()

    pairs = {"only hidden neurons": [], "the output": []}
    for step in range(1, 5001):
        inputs = torch.randn(64, 10)
        optimizer.zero_grad()
        (model(inputs)[:, 0] - inputs.sum(1)).square().mean().backward()
        before = loss() if step % 20 == 0 and step > 2000 else None
        optimizer.step()
        if before is not None and any(optimizer.latest.values()):
            pairs["the output" if optimizer.latest.get(2) else "only hidden neurons"].append((before, loss()))
    for what, values in pairs.items():
        if values:
            before, after = torch.tensor(values).median(dim=0).values.tolist()
            print(f"  {which}: {what} replaced {len(values)} times: {before:.4f}, then {after:.4f}")
            assert (after > 100 * before) == (what == "the output")
    assert bool(pairs["the output"]) == (which == "as it comes")

print("3. PPO of Stable-Baselines3, one step:")
policy = PPO("MlpPolicy", "CartPole-v1", seed=0).policy
optimizer = Watched(policy.optimizer, model=policy, continuous=False, replacement_rate=0.05, reset_interval=1, maturity_steps=0)
name_of = {id(parameter): name for name, parameter in policy.named_parameters()}
layers = [name_of[id(config.param)] for config in optimizer.neuron_configs]
for config in optimizer.neuron_configs:
    out = "nothing" if config.outgoing_param is None else name_of[id(config.outgoing_param)]
    print(f"  {name_of[id(config.param)]}: leads to {out}")
observations = torch.randn(64, 4)
values, log_prob, entropy = policy.evaluate_actions(observations, torch.randint(2, (64,)))
(values.square().mean() - log_prob.mean()).backward()
optimizer.step()
actor = optimizer.latest[layers.index("mlp_extractor.policy_net.2.weight")]
critic = optimizer.latest[layers.index("mlp_extractor.value_net.2.weight")]
zero = {name: (policy.get_submodule(name).weight == 0).any(dim=0).nonzero().ravel().tolist() for name in ("action_net", "value_net")}
print(f"  replaced: the actor's neurons {actor} and the critic's {critic}")
print(f"  weights set to 0: the actor's from neurons {zero['action_net']}, the critic's from {zero['value_net']}")
assert actor and critic and set(actor) != set(critic)
assert zero["action_net"] == critic and not zero["value_net"]
print("As described: too many, the outputs, too, and those of another network.")
EOF
