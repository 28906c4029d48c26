"""A real Meta-World cycle, end to end: two phases, save, load, continue."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from tagged_tasks import Spy, differing, parameters, random_states

import sb3_nbsp  # noqa: F401 (registers the environments)
from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import Phase

pytest.importorskip("metaworld")

TASKS = ["coffee-button", "drawer-close"]


def cycle(steps_per_task: int = 1500) -> gym.Env:
    return gym.make("MW-Cycle-v0", tasks=TASKS, cycles=1, horizon=150, steps_per_task=steps_per_task)


def agent_for(env: gym.Env, **kwargs: Any) -> NBSPSAC:
    options = {"policy_kwargs": {"net_arch": [32, 32]}, "batch_size": 64, "learning_starts": 300, "buffer_size": 5000}
    return NBSPSAC(
        "MlpPolicy",
        env,
        **{"seed": 1, "device": "cpu", "memory_size": 500, "identification_steps": 1000, **options, **kwargs},  # type: ignore[arg-type]
    )


class Infos(BaseCallback):
    """Keeps what the environment says at every step."""

    def _on_training_start(self) -> None:
        self.infos: list[dict[str, Any]] = getattr(self, "infos", [])

    def _on_step(self) -> bool:
        wanted = ("task", "phase", "boundary", "success", "is_success", "sequence_over")
        self.infos.append({name: self.locals["infos"][0][name] for name in wanted})
        return True


def steps_of(infos: list[dict[str, Any]], task: str) -> int:
    return sum(info["task"] == task for info in infos)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The goal metric")  # success is rare after so few steps
def test_two_phases_then_save_load_and_continue(tmp_path: Path) -> None:
    spy, infos = Spy(), Infos()
    agent = agent_for(cycle(), interventions=[spy], identification_data="training")
    # Stop in the middle of the second task's phase
    agent.learn(2000, callback=infos)
    masking, replay, _ = agent.all_interventions._all
    assert agent.phase == Phase(1, "drawer-close")
    first = steps_of(infos.infos, "coffee-button")
    # An episode takes 150 steps, and random tries press a coffee button now and then but do not master it
    assert first == 1500 and agent.phase_steps == agent.replay_buffer.size() == 500
    assert agent._n_updates == (1500 - 300) + (500 - 300)
    assert replay.memory.tasks == {"coffee-button": 500}
    assert set(masking.scores) == {"coffee-button"}
    assert all(len(skill) == 64 and 0 < skill.sum() <= 13 for skill in masking.skill_neurons["coffee-button"].values())
    # The best neuron of the actor's first layer, worked out here
    end = spy.ends[0]
    observations = th.tensor(end["buffer"].observations[500:1500, 0])
    with th.no_grad():
        hidden = end["policy"].actor.latent_pi[:2](observations).double()
    q = np.array([info["success"] for info in infos.infos[500:1500]])
    if q.min() == q.max():  # no success so early: the return of each of the ten episodes takes its place
        rewards = np.concatenate([reward for reward, _, _ in spy.transitions[0]]).astype(np.float64)
        q = np.repeat(rewards.reshape(10, 150).sum(1), 150)[500:]
    scores = masking.scores["coffee-button"]["actor"][:32]
    best = int(scores.argmax())
    above = (hidden[:, best] > hidden[:, best].mean()).numpy()
    good = q > q.mean()
    accuracy = (above[good].mean() + (~above[~good]).mean()) / 2  # balanced: of the good steps and of the others
    rounding = 1 / good.sum() + 1 / (~good).sum()  # two steps may round otherwise
    assert scores[best].item() == pytest.approx(max(accuracy, 1 - accuracy), abs=rounding)
    assert scores[best] > 0.5

    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    before = parameters(agent)
    loaded = NBSPSAC.load(tmp_path / "model", env=cycle())
    loaded.load_replay_buffer(tmp_path / "buffer")
    assert differing(before, parameters(loaded)) == []
    assert differing(masking.masks, loaded.all_interventions._all[0].masks) == []
    again = Infos()
    loaded.learn(10_000, callback=again, reset_num_timesteps=False)
    # The episode that was broken off (50 steps) began anew
    played = steps_of(again.infos, "drawer-close")
    over = again.infos[-1]
    assert steps_of(again.infos, "coffee-button") == 0 and over["boundary"] and over["sequence_over"]
    mastered = sum(info["is_success"] for info in again.infos[149::150][-10:]) >= 9
    assert played == 1050 or mastered  # 500 + 1050 is the first whole episode behind 1500 steps
    assert loaded.num_timesteps == 2000 + played
    assert set(loaded.all_interventions._all[0].scores) == set(TASKS)
    assert loaded.all_interventions._all[1].memory.tasks == {"coffee-button": 250, "drawer-close": 250}
    after = parameters(loaded)
    assert all(th.isfinite(tensor).all() for tensor in after.values())
    assert len(differing(before, after)) > 20
    action, _ = loaded.predict(observations[:5].numpy(), deterministic=True)
    assert action.shape == (5, 4) and (np.abs(action) <= 1).all()


def test_fresh_steps_on_metaworld_leave_everything_as_it_was() -> None:
    """Meta-World draws its goals from global random streams: those come back as they were."""
    states: list[Any] = []

    class Look(Spy):
        def on_phase_end(self, phase: Phase) -> None:
            simulator = self.agent.env.envs[0].unwrapped._env().unwrapped.data
            states.append((random_states(), random.getstate(), simulator.qpos.tolist(), self.agent._last_obs.tolist()))

    options = {"identification_data": "fresh", "identification_steps": 200, "learning_starts": 200}
    agent = agent_for(cycle(300), **options, interventions=[Look()])
    agent.all_interventions._all.insert(0, agent.all_interventions._all[-1])  # once in front of NBSP's own, once behind them
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # success is rare after so few steps
        agent.learn(300)
    assert agent.phase.index == 1
    assert states[0] == states[1]
    assert len(states) == 2
