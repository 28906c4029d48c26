"""gSDE's noise lasts for a while: outside the agent's own rollouts, too, every episode has one of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from tagged_tasks import TaggedTask, random_states, tagged_sequence, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC
from sb3_nbsp.interventions.goal_window import GoalWindow
from sb3_nbsp.interventions.rollout import fresh_steps

SMALL: dict[type, dict[str, Any]] = {ContinualSAC: {"learning_starts": 5, "buffer_size": 100}, ContinualPPO: {"n_steps": 16}}


@pytest.mark.parametrize(("frequency", "starts"), [(-1, {0, 10, 20}), (4, {0, 4, 8, 10, 14, 18, 20, 24})])
@pytest.mark.parametrize("cls", SMALL)
def test_fresh_steps_draw_noise_for_every_episode_and_as_often_as_the_agent(
    cls: type[Any], frequency: int, starts: set[int]
) -> None:
    TaggedTask.played.clear()
    options = {"use_sde": True, "sde_sample_freq": frequency, "seed": 0, "batch_size": 8, "device": "cpu", **SMALL[cls]}
    agent = cls("MlpPolicy", TaggedTask(1.0), policy_kwargs={"net_arch": [8], "log_std_init": -1}, **options).learn(16)
    explorer = agent.actor if cls is ContinualSAC else agent.policy

    def noise() -> list[th.Tensor]:
        distribution = explorer.action_dist
        return [distribution.exploration_mat, distribution.exploration_matrices, distribution.weights_dist.scale]

    before, random = noise(), random_states()
    fresh_steps(agent, lambda: TaggedTask(2.0), 26, seed=7, window=GoalWindow(26, 1))
    assert all(old is new for old, new in zip(before, noise(), strict=True)) and random_states() == random
    played, matrices = TaggedTask.played[2.0], []
    with th.random.fork_rng():
        th.manual_seed(7)
        for step, (observation, action, *_) in enumerate(played):
            if step in starts:
                explorer.reset_noise(1)
                matrices.append(noise()[0].clone())
            np.testing.assert_allclose(agent.predict(observation)[0], action, atol=1e-6)
    assert len(played) == 26 and not any(map(th.equal, matrices, matrices[1:]))


def test_every_episode_of_a_look_has_noise_of_its_own() -> None:
    """The whole look is in one rollout."""
    noises: list[th.Tensor] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            if self.model._is_probing:  # type: ignore[attr-defined]
                noises.append(self.model.actor.action_dist.exploration_mat)  # type: ignore[attr-defined]
            return True

    options = {"use_sde": True, "train_freq": 100, "known_task_threshold": 1.0, "probe_episodes": 3}
    agent = tiny(ContinualSAC, tagged_sequence(success="always"), **options)
    agent.learn(100, Watch())
    assert len(noises) == 30
    assert len({id(noise) for noise in noises}) == 3 and len({id(noise) for noise in noises[10:20]}) == 1
