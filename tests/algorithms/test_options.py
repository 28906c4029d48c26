"""An option that is set as an attribute acts, or is refused; nothing is silently ignored."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from tagged_tasks import TaggedTask, tagged_sequence, tiny

import sb3_nbsp
from sb3_nbsp import EWCSAC, NBSPSAC, P3O, ContinualPPO, ContinualSAC, FullResetSAC, PerfectMemorySAC
from sb3_nbsp.algorithms.options import own_options
from sb3_nbsp.interventions import RandomReset

AGENTS = [each for each in vars(sb3_nbsp).values() if inspect.isclass(each) and issubclass(each, (ContinualPPO, ContinualSAC))]


def small(cls: type, **options: Any) -> Any:
    return cls("MlpPolicy", TaggedTask(1.0), policy_kwargs={"net_arch": [8]}, device="cpu", **options)


@pytest.mark.parametrize("cls", AGENTS)
def test_every_option_is_settable_or_fixed(cls: Any) -> None:
    agent = small(cls)
    assert own_options(cls) >= {"interventions", "fused"} and cls.settable <= own_options(cls)
    for name in own_options(cls):
        value = getattr(agent, name)
        if name in cls.settable:
            setattr(agent, name, value)
            continue
        with pytest.raises(
            AttributeError, match=rf"^{name} of {cls.__name__} is fixed .* {cls.__name__}\.load\(path, {name}=\.\.\.\)$"
        ):
            setattr(agent, name, value)
        assert getattr(agent, name) is value
    agent.gamma = 0.5  # SB3's are SB3's affair
    agent.anything = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probe_episodes", 0),
        ("known_task_threshold", 2),
        ("phase_learning_starts", -1),
        ("fused", "yes"),
        ("qf_learning_rate", -1),
    ],
)
def test_a_value_out_of_its_range_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    agent = small(ContinualSAC)
    before = getattr(agent, name)
    with pytest.raises(ValueError, match=f"^{name} must be"):
        setattr(agent, name, value)
    assert getattr(agent, name) is before
    agent.save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"{name} must be"):
        ContinualSAC.load(tmp_path / "model", **{name: value})


def test_what_is_set_acts() -> None:
    agent = tiny(ContinualSAC, tagged_sequence())
    agent.learn(40)
    agent.clear_replay_buffer, agent.phase_learning_starts, agent.qf_learning_rate = False, 7, 0.125
    assert agent.actor.optimizer.param_groups[0]["fused"]
    agent.fused = False
    agent.learn(28, reset_num_timesteps=False)
    assert agent.replay_buffer.size() == 68 and agent.phase.index == 1
    assert agent.critic.optimizer.param_groups[0]["lr"] == 0.125 and agent.actor.optimizer.param_groups[0]["lr"] == 3e-3
    assert not agent.actor.optimizer.param_groups[0]["fused"]
    assert agent._n_updates == 40 + 1  # 20 of warm-up, then every step but those of the second warm-up
    ppo = small(P3O, n_steps=16)
    ppo.fused = False
    assert not ppo.policy.optimizer.param_groups[0]["fused"]


def test_options_of_a_users_own_class_are_the_users() -> None:
    class Mine(NBSPSAC):
        def __init__(self, *args: Any, flavour: str = "sweet", **kwargs: Any) -> None:
            self.flavour = flavour
            super().__init__(*args, **kwargs)

    agent = small(Mine)
    agent.flavour = "sour"
    assert agent.flavour == "sour"
    with pytest.raises(AttributeError, match="mask_alpha of Mine is fixed"):
        agent.mask_alpha = 0.9


@pytest.mark.parametrize("cls", [ContinualPPO, ContinualSAC])
def test_interventions_are_given_when_an_agent_is_made_or_loaded_and_not_later(cls: Any, tmp_path: Path) -> None:
    given: list[Any] = [RandomReset()]
    agent = small(cls, interventions=given)
    given.append(RandomReset())
    with pytest.raises(AttributeError, match="'tuple' object has no attribute 'append'"):
        agent.interventions.append(RandomReset())
    assert list(agent.interventions) == list(agent.all_interventions) == given[:1]
    agent.save(tmp_path / "model")
    others: list[Any] = [RandomReset()]
    for loaded in (cls.load(tmp_path / "model"), cls.load(tmp_path / "model", interventions=others)):
        others.append(RandomReset())
        assert isinstance(loaded.interventions, tuple)
        assert len(loaded.interventions) == 1 and list(loaded.interventions) == list(loaded.all_interventions)
    with pytest.raises(ValueError, match="interventions must be a list of Intervention objects"):
        cls.load(tmp_path / "model", interventions=[RandomReset])


@pytest.mark.parametrize(
    ("cls", "options", "name", "value"),
    [
        (NBSPSAC, {}, "reset_critics", True),
        (EWCSAC, {"ewc_critic_coef": 1.0}, "reset_critics", True),
        (FullResetSAC, {}, "known_task_threshold", 0.5),
        (PerfectMemorySAC, {}, "clear_replay_buffer", True),
    ],
)
def test_what_an_intervention_does_not_go_with_is_refused(cls: Any, options: Any, name: str, value: Any) -> None:
    """In the middle of training, too: what was refused when the agent was made is not let in by a callback."""
    agent = tiny(cls, tagged_sequence(), **options)
    before = getattr(agent, name)

    def set_it(*_: Any) -> bool:
        with pytest.raises(ValueError, match=name):
            setattr(agent, name, value)
        return True

    agent.learn(5, callback=set_it)
    assert getattr(agent, name) is before
