"""Full reset: at the start of a phase the agent is as new, and until then plain."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from tagged_tasks import Spy, TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import ContinualSAC, FullResetPPO, FullResetSAC
from sb3_nbsp.interventions import FullReset, GradientMasking, Intervention
from sb3_nbsp.interventions.fresh_networks import fresh_policy


@pytest.mark.parametrize("keep", [False, True])
def test_a_phase_starts_with_new_networks(keep: bool) -> None:
    spy = Spy()
    agent = tiny(FullResetSAC, tagged_sequence(), clear_replay_buffer=not keep, ent_coef="auto_0.5", interventions=[spy])
    agent.learn(100)
    (end, *_), (start, *_) = spy.ends, spy.starts
    assert all(end["moments"].values()) and not any(start["moments"].values())
    assert start["log_ent_coef"] == pytest.approx(np.log(0.5)) and end["log_ent_coef"] != start["log_ent_coef"]
    assert start["buffer"].size() == (60 if keep else 0)
    expected = fresh_policy(agent, 1, 310)
    assert differing(start["policy"].state_dict(), expected.state_dict()) == []
    critic, target = start["policy"].critic, start["policy"].critic_target
    assert differing(critic.state_dict(), target.state_dict()) == []


def test_until_then_it_is_sb3() -> None:
    ours = tiny(FullResetSAC, tagged_sequence(), fused=False).learn(59)
    plain = tiny(SAC, tagged_sequence()).learn(59)
    assert differing(parameters(ours), parameters(plain)) == []


class Watch(Intervention):
    """PPO's parameters when it hears of the phase, and after the update on the rollout with the boundary in it."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._seen: list[tuple[str, dict[str, th.Tensor]]] = []

    def on_phase_start(self, phase: Any) -> None:
        self._seen.append(("start", parameters(self.agent)))

    def after_train(self) -> None:
        self._seen.append(("trained", parameters(self.agent)))


def test_ppo_first_learns_from_the_rollout_with_the_old_policy() -> None:
    watch = Watch()
    agent = tiny(FullResetPPO, tagged_sequence(), interventions=[watch])
    agent.learn(80)
    (before,) = [index for index, (when, _) in enumerate(watch._seen) if when == "start"]
    expected = dict(fresh_policy(agent, 1, 310).state_dict())
    assert len(differing(watch._seen[before][1], expected)) > 3
    assert differing(watch._seen[before + 1][1], expected) == []


def test_a_copy_goes_back_to_the_initial_coefficient_too() -> None:
    agent = tiny(FullResetSAC, tagged_sequence(), ent_coef="auto_0.5").learn(50)
    copied = copy.deepcopy(agent)
    copied.all_interventions.find(FullReset).change(1)
    assert agent.log_ent_coef.item() != pytest.approx(np.log(0.5))
    assert copied.log_ent_coef.item() == pytest.approx(np.log(0.5))


def test_what_cannot_go_with_it_is_refused() -> None:
    with pytest.raises(ValueError, match="FullReset replaces networks, of which GradientMasking keeps account"):
        tiny(ContinualSAC, tagged_sequence(), interventions=[GradientMasking(), FullReset()])
    with pytest.raises(ValueError, match="known_task_threshold"):
        tiny(FullResetSAC, tagged_sequence(), known_task_threshold=0.5)


def test_without_phases_it_says_that_it_will_not_act() -> None:
    with pytest.warns(UserWarning, match="FullReset of this FullResetSAC will not act"):
        tiny(FullResetSAC, TaggedTask(1.0)).learn(30)
