"""Small NBSP agents, and all that a file of theirs has to hold."""

from __future__ import annotations

from typing import Any

import torch as th
from tagged_tasks import parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions.task_memory import FIELDS

COUNTERS = ("phase", "phase_steps", "_phase_over", "_env_phase", "_n_updates", "num_timesteps")


def nbsp(env: Any = None, **kwargs: Any) -> Any:
    return tiny(NBSPSAC, tagged_sequence() if env is None else env, **{"memory_size": 50, **kwargs})


def state_of(agent: Any) -> dict[str, th.Tensor]:
    """Everything that NBSP has learned: parameters, optimizers, masks, scores, memory, window and D."""
    masking, replay = agent.all_interventions._all[:2]
    state = parameters(agent)
    state.update({f"mask.{name}": mask for name, mask in masking.masks.items()})
    for kind in ("scores", "skill_neurons"):
        for task, networks in getattr(masking, kind).items():
            state.update({f"{kind}.{task}.{name}": values for name, values in networks.items()})
    state.update(
        {f"window.{name}": metric.nan_to_num(-7.0) for name, metric in masking.state_dict()["window"]["metrics"].items()}
    )
    for which, buffer in (("D_pre", replay.memory), ("D", agent.replay_buffer)):
        if buffer is not None:
            state.update({f"{which}.{name}": th.tensor(getattr(buffer, name)) for name in FIELDS})
    for name in ("actor", "critic"):
        for index, moments in enumerate(getattr(agent, name).optimizer.state_dict()["state"].values()):
            state.update({f"{name}.{index}.{key}": value for key, value in moments.items()})
    return {name: tensor.detach().clone() for name, tensor in state.items()}
