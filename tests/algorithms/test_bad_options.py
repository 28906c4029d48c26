"""Every wrong option is one ValueError that names it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.buffers import NStepReplayBuffer
from tagged_tasks import TaggedTask, tiny

from sb3_nbsp import NBSPSAC, ContinualDiscreteSAC, ContinualPPO, ContinualSAC, NBSPDiscreteSAC
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking
from sb3_nbsp.tasks import SequenceCheckpoint

NAN, INF = float("nan"), float("inf")
SHARE = [-0.1, 1.1, NAN, "0.2", None, True]
COUNT = [0, -1, 10.5, 2.5, "10", None, True, INF]
SWITCH = ["yes", 2, None]
MASKING: dict[str, list[Any]] = {
    "skill_proportion": [0, *SHARE],
    "mask_alpha": SHARE,
    "mask_type": ["softer", None, True, ["soft"]],
    "mask_target": ["gradients", None],
    "mask_accumulation": ["maximum", None],
    "mask_networks": ["qf0", None, ["actor"]],
    "identification": ["success", None],
    "identification_steps": COUNT,
    "identification_data": ["old", None],
    "goal_metric": ["success", None, 1.0],
    "mask_side": ["rows", None, ["both"]],
    "min_active_share": [0.51, *SHARE],
}
REPLAY: dict[str, list[Any]] = {"memory_size": COUNT, "replay_interval": COUNT, "replay_ent_coef": ["old", None, 0.1]}
AGENT: dict[str, list[Any]] = {
    "qf_learning_rate": [-1e-3, NAN, "1e-3", True],
    "interventions": [GradientMasking(), [GradientMasking], ["GradientMasking"], None, 3],
    "clear_replay_buffer": SWITCH,
    "phase_learning_starts": [-1, 10.5, "10", True],
    "known_task_threshold": [0, -0.1, 1.1, "0.5", True],
    "probe_episodes": [0, -1, 2.5, "10", True, None],
    "reset_optimizers": SWITCH,
    "reset_ent_coef": SWITCH,
    "fused": SWITCH,
    "matmul_precision": ["low", "high", None, True, 32],
}
SWITCHES: dict[str, list[Any]] = {"masking": SWITCH, "replay": SWITCH}


def cases(*tables: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for table in tables for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), cases(MASKING))
def test_gradient_masking(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        GradientMasking(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(REPLAY))
def test_experience_replay(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ExperienceReplay(**{name: value})


@pytest.mark.parametrize(("name", "value"), cases(AGENT))
def test_continual_sac(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        tiny(ContinualSAC, TaggedTask(1.0), **{name: value})


@pytest.mark.parametrize(("name", "value"), cases(MASKING, REPLAY, AGENT, SWITCHES))
def test_nbsp_sac(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        tiny(NBSPSAC, TaggedTask(1.0), **{name: value})


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        *((cls, "batch_size", value) for cls in (ContinualSAC, ContinualDiscreteSAC) for value in COUNT),
        *((ContinualPPO, "n_epochs", value) for value in COUNT),
        (ContinualPPO, "batch_size", 2.5),
    ],
)
def test_what_would_fail_at_the_first_update(cls: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        cls("MlpPolicy", "CartPole-v1" if cls is ContinualDiscreteSAC else "Pendulum-v1", **{name: value})


def test_whole_floats_of_sb3s_options() -> None:
    agent = ContinualPPO("MlpPolicy", "Pendulum-v1", n_steps=4, batch_size=4.0, n_epochs=2.0, policy_kwargs={"net_arch": [4]})
    agent.learn(4)
    assert agent._n_updates == 2


@pytest.mark.parametrize("switched_off", [{"masking": False}, {"replay": False}])
@pytest.mark.parametrize("wrong", [{"mask_alpha": -1}, {"memory_size": 0}])
def test_options_of_what_is_switched_off_are_checked_too(switched_off: dict[str, Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        tiny(NBSPSAC, TaggedTask(1.0), **switched_off, **wrong)


GOOD: list[dict[str, Any]] = [
    {"skill_proportion": 1},
    {"skill_proportion": np.float32(0.5)},
    {"mask_alpha": 0},
    {"mask_alpha": 1.0},
    {"identification_steps": np.int64(10)},
    {"goal_metric": lambda reward, done, info: reward},
    {"memory_size": 1, "replay_interval": 1},
    {"phase_learning_starts": 0},
    {"phase_learning_starts": None},
    {"known_task_threshold": None},
    {"known_task_threshold": 1, "probe_episodes": 1},
    {"qf_learning_rate": 0},
    {"qf_learning_rate": lambda remaining: 1e-3 * remaining},
    {"interventions": (GradientMasking(), ExperienceReplay())},
    {"min_active_share": 0, "fused": False},
    {"min_active_share": 0.5, "mask_side": "outgoing", "identification": "balanced", "fused": np.bool_(True)},
]


@pytest.mark.parametrize("options", GOOD)
def test_the_ends_of_the_ranges_are_good(options: dict[str, Any]) -> None:
    agent = tiny(NBSPSAC, TaggedTask(1.0), **options)
    for name, value in options.items():
        assert getattr(agent, name) == (tuple(value) if isinstance(value, list) else value)


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="mask_alhpa"):
        tiny(NBSPSAC, TaggedTask(1.0), mask_alhpa=0.2)


# What does not go together


@pytest.mark.parametrize("cls", [ContinualSAC, NBSPSAC])
def test_n_step_returns_and_memory(cls: type) -> None:
    interventions = {"interventions": [ExperienceReplay()]} if cls is ContinualSAC else {}
    with pytest.raises(ValueError, match="n_steps=3"):
        tiny(cls, TaggedTask(1.0), n_steps=3, **interventions)
    buffer = {"replay_buffer_class": NStepReplayBuffer, "replay_buffer_kwargs": {"n_steps": 2}}
    with pytest.raises(ValueError, match="n_steps"):
        tiny(cls, TaggedTask(1.0), **buffer, **interventions)


@pytest.mark.parametrize(
    ("net_arch", "network"), [([], "actor"), ({"pi": [8], "qf": []}, "qf0"), ({"pi": [], "qf": [8]}, "actor")]
)
def test_networks_without_hidden_layers(net_arch: Any, network: str) -> None:
    with pytest.raises(ValueError, match=f"net_arch gives the network '{network}' no hidden layer"):
        tiny(NBSPSAC, TaggedTask(1.0), policy_kwargs={"net_arch": net_arch})
    tiny(NBSPSAC, TaggedTask(1.0), policy_kwargs={"net_arch": net_arch}, masking=False)


def test_discrete_actions() -> None:
    with pytest.raises(AssertionError, match="Discrete"):
        tiny(NBSPSAC, gym.make("CartPole-v1"))


@pytest.mark.parametrize("save_freq", [0, -5])
def test_checkpoints(save_freq: int) -> None:
    with pytest.raises(ValueError, match="save_freq"):
        SequenceCheckpoint(save_freq, "nowhere")


def test_the_class_for_other_actions_is_named() -> None:
    for cls, env, other in (
        (NBSPSAC, "CartPole-v1", "ContinualDiscreteSAC"),
        (NBSPDiscreteSAC, "Pendulum-v1", "ContinualSAC"),
    ):
        with pytest.raises(AssertionError, match=rf"The algorithm only supports .* was provided: for .*, there are {other}"):
            cls("MlpPolicy", env)
