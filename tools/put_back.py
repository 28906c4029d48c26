"""
What the second task changed in the actor, and what of it cost the first task.

For every finished run of a comparison with `--switch-steps`, on states of the first task's replay buffer: the KL divergence of
the policy from what it was, and how far activations drifted. Then success on the first task with parts of the old actor put
back into the new one, and with neurons of the old actor set to zero. Runs without masks are looked at with the skill neurons
that NBSP found in the same first phase.

    python -m tools.put_back DIR

writes DIR/put_back.csv, a row for each run; runs that are in there are skipped.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.interventions.networks import ActorNetwork, actor_of
from sb3_nbsp.interventions.parameter_masks import MaskSide, parameter_masks
from sb3_nbsp.interventions.policy_divergence import alpha_dkl
from sb3_nbsp.neurons import record_activations, zeroed
from sb3_nbsp.tasks import load_checkpoint
from sb3_nbsp.tasks.policy_evaluation import SEED, evaluate_task, evaluation_seed
from sb3_nbsp.tasks.task_envs import task_makers
from sb3_nbsp.zoo.algos import algorithm

N_STATES = 4000


class FirstTask:
    """
    The agent at the end of the first phase, and what it knew.

    :param first: the folder of the first phase
    :param skills: the actor's skill neurons, boolean, shape (neurons,)
    :param n_episodes: episodes of an evaluation
    """

    def __init__(self, first: RunFolder, skills: th.Tensor, n_episodes: int) -> None:
        settings = settings_of(first)
        assert first.checkpoint is not None
        self.agent: Any = load_checkpoint(algorithm(settings.algo), first.checkpoint, settings.make_env(), interventions=())
        self.actor, self.skills, self.n_episodes = actor_of(self.agent), skills, n_episodes
        buffer = self.agent.replay_buffer
        rows = np.linspace(0, buffer.size() - 1, N_STATES).astype(int)
        self.states = buffer.to_torch(buffer.observations[rows, 0]).float()
        activations = record_activations(self.actor.forward, (self.states, self.states), self.actor.layers)
        self.activations, self.live = activations, (activations != activations[0]).any(dim=0)
        others = (self.live & ~skills).nonzero().flatten()
        drawn = others[th.randperm(len(others), generator=th.Generator().manual_seed(0))[: int(skills.sum())]]
        self.random = th.zeros_like(skills).index_fill(0, drawn, True)

    def success(self, agent: BaseAlgorithm) -> float:
        """Success rate of the deterministic policy, in the episodes of the benchmark's evaluations."""
        name, make = next(iter(task_makers(self.agent.env).items()))
        with closing(self.agent._wrap_env(make(), monitor_wrapper=True)) as env:
            return evaluate_task(agent, env, self.n_episodes, evaluation_seed(SEED, 0, agent.seed), task=name).value

    def without(self, neurons: th.Tensor) -> float:
        """Success of the agent of the end of the first phase when some of its actor's neurons are zero."""
        with ExitStack() as stack:
            stack.enter_context(zeroed(self.actor.layers, neurons))
            return self.success(self.agent)

    def changes(self, new: BaseAlgorithm) -> dict[str, float]:
        """How far the second task has moved the actor, on states of the first."""
        actor = actor_of(new)
        with th.no_grad():
            kl = alpha_dkl(self.actor.distribution(self.states), actor.distribution(self.states), alpha=1.0).mean().item()
        after = record_activations(actor.forward, (self.states, self.states), actor.layers)
        drift = (after - self.activations).abs().mean(0)
        size = self.activations.abs().mean(0)
        groups = {"skill": self.live & self.skills, "other": self.live & ~self.skills}
        return {"kl": kl, **{f"drift_{name}": (drift[g].sum() / size[g].sum()).item() for name, g in groups.items()}}

    def put_back(self, new: BaseAlgorithm) -> dict[str, float]:
        """Success on the first task when parts of the actor are again what they were."""
        actor = actor_of(new)
        hidden = th.ones_like(self.skills)
        everything = {parameter: th.zeros(1) for parameter in actor.own}
        parts = {
            "skill_rows": freed(actor, self.skills, "incoming"),
            "random_rows": freed(actor, self.random, "incoming"),
            "skill_columns": freed(actor, self.skills, "outgoing"),
            "skill_both": freed(actor, self.skills, "both"),
            "hidden_layers": freed(actor, hidden, "incoming"),
            "output_layers": {p: z for p, z in everything.items() if p not in freed(actor, hidden, "incoming")},
            "all_but_skill_rows": {**everything, **freed(actor, ~self.skills, "incoming")},
        }
        return {f"back_{name}": self._success_with(new, actor, masks) for name, masks in parts.items()}

    def _success_with(self, new: BaseAlgorithm, actor: ActorNetwork, masks: dict[nn.Parameter, th.Tensor]) -> float:
        now = [parameter.detach().clone() for parameter in actor.own]
        with th.no_grad():
            for parameter, old in zip(actor.own, self.actor.own, strict=True):
                if parameter in masks:
                    mask = masks[parameter].to(parameter)
                    rows = mask.view(-1, *[1] * (parameter.dim() - 1)) if mask.dim() == 1 else mask
                    parameter.copy_(old.lerp(parameter, rows))
            found = self.success(new)
            for parameter, value in zip(actor.own, now, strict=True):
                parameter.copy_(value)
        return found


def freed(actor: ActorNetwork, neurons: th.Tensor, side: MaskSide) -> dict[nn.Parameter, th.Tensor]:
    """Masks that are 0 for the parameters of some neurons, and 1 for others."""
    parts = (~neurons).double().split([layer.n_neurons for layer in actor.layers])
    return parameter_masks([actor], {layer.name: part for layer, part in zip(actor.layers, parts, strict=True)}, side)


def settings_of(folder: RunFolder) -> Settings:
    """What a run was made with."""
    return Settings(**{name: value for name, value in folder.config().items() if name in Settings.__dataclass_fields__})


def skill_neurons(folder: RunFolder) -> th.Tensor | None:
    """The actor's skill neurons after the first phase; None of a run that has none."""
    if (found := folder.neurons()) is None:
        return None
    widths, chosen = dict(found["networks"]["actor"]), found["phases"][0]["networks"]["actor"]["skill_neurons"]
    layers = [th.zeros(n, dtype=th.bool).index_fill(0, th.tensor(chosen[name]).long(), True) for name, n in widths.items()]
    return th.cat(layers)


def look_at(folder: Path, method: str, seed: int, n_episodes: int) -> dict[str, Any] | None:
    """The row of one run; None if nobody has found skill neurons in its first phase."""
    run = RunFolder(folder / method / f"seed_{seed}")
    (first,) = (folder / "first_phase").glob(f"seed_{seed}_*")
    skills = skill_neurons(run)
    if skills is None:
        skills = skill_neurons(RunFolder(folder / "nbsp_sac" / f"seed_{seed}"))
    if skills is None:
        return None
    old = FirstTask(RunFolder(first), skills, n_episodes)
    new = algorithm(settings_of(run).algo).load(run.model, device="cpu")
    return {
        "method": method,
        "seed": seed,
        "dead": 1 - old.live.float().mean().item(),
        "skill_share_of_live": ((old.live & skills).sum() / old.live.sum()).item(),
        "before": old.success(old.agent),
        "skills_zeroed": old.without(skills),
        "random_zeroed": old.without(old.random),
        "after": old.success(new),
        **old.changes(new),
        **old.put_back(new),
    }


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(
        description="What the second task changed in the actor, and what of it cost the first task."
    )
    parser.add_argument("folder", type=Path, help="of a comparison with --switch-steps")
    parser.add_argument("--n-eval-episodes", type=int, default=20, help="episodes of each evaluation (default: %(default)s)")
    args = parser.parse_args()
    th.set_num_threads(1)
    path = args.folder / "put_back.csv"
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    runs = sorted((found.parent.parent.name, int(found.parent.name[5:])) for found in args.folder.glob("*/seed_*/model.zip"))
    for method, seed in runs:
        if not any((row["method"], row["seed"]) == (method, seed) for row in rows):
            row = look_at(args.folder, method, seed, args.n_eval_episodes)
            if row is None:
                print(f"{method}, seed {seed}: left out, as no finished NBSP run has its skill neurons")
                continue
            rows.append(row)
            pd.DataFrame(rows).to_csv(path, index=False)
            print(pd.DataFrame(rows[-1:]).T.to_string(header=False))


if __name__ == "__main__":
    main()
