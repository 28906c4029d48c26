"""The goal metric of the last steps, aligned with the end of a replay buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_nbsp.interventions.goal_window import GoalWindow, step_success

SPACE = spaces.Box(-np.inf, np.inf, (1,), np.float64)


class Recording:
    """Feeds a window and a buffer with the same steps; the observation is the number of the step."""

    def __init__(self, n_steps: int, n_envs: int, buffer_size: int, custom: Any = None, **buffer: Any) -> None:
        self.window = GoalWindow(n_steps, n_envs, custom)
        self.buffer = ReplayBuffer(buffer_size * n_envs, SPACE, SPACE, "cpu", n_envs, **buffer)
        self.n_envs = n_envs
        # By environment: (number of the step, reward, done, success)
        self.steps: list[list[tuple[int, float, bool, float | None]]] = [[] for _ in range(n_envs)]

    def add(self, rewards: list[float], dones: list[bool], successes: list[float | None]) -> None:
        t = len(self.steps[0])
        observations = np.array([[t * 10.0 + env] for env in range(self.n_envs)])
        infos: list[dict[str, Any]] = [{} if success is None else {"success": success} for success in successes]
        reward, done = np.array(rewards), np.array(dones)
        self.buffer.add(observations, observations + 10, np.zeros((self.n_envs, 1)), reward, done, infos)
        self.window.add(reward, done, infos)
        for env in range(self.n_envs):
            self.steps[env].append((t * 10 + env, rewards[env], dones[env], successes[env]))

    def selected(self, name: str) -> list[tuple[float, float]]:
        """(number of the step, metric)"""
        rows, envs, metric = self.window.select(name, self.buffer)
        numbers = self.buffer.observations[rows, envs, 0]
        return list(zip(numbers.tolist(), metric.tolist(), strict=True))

    def slow(self, name: str, available: int) -> list[tuple[float, float]]:
        """The same from the list of all steps: one episode at a time."""
        found: dict[int, float] = {}
        reports = any(step[3] is not None for steps in self.steps for step in steps)
        for steps in self.steps:
            episode: list[tuple[int, float, bool, float | None]] = []
            for step in steps:
                episode.append(step)
                if name == "step_success" and step[3] is not None:
                    found[step[0]] = step[3]
                if step[2]:
                    known = [each[3] for each in episode if each[3] is not None]
                    for each in episode:
                        if name == "episode_return":
                            found[each[0]] = sum(other[1] for other in episode)
                        if name == "episode_success" and (known or reports):
                            found[each[0]] = max(known, default=0.0)
                    episode = []
        oldest = (len(self.steps[0]) - available) * 10
        return [(number, found[number]) for number in sorted(found) if number >= oldest]


NAMES = ("step_success", "episode_success", "episode_return")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n_steps", "n_envs", "buffer_size"), [(7, 1, 50), (7, 1, 5), (20, 1, 20), (9, 2, 50), (12, 3, 4)])
def test_against_a_list_of_all_steps(name: str, n_steps: int, n_envs: int, buffer_size: int) -> None:
    """Episodes of random lengths, ending at different times; buffer and window both wrap around."""
    random = np.random.default_rng(0)
    both = Recording(n_steps, n_envs, buffer_size)
    left = random.integers(1, 9, size=n_envs)
    seen_known = 0
    for t in range(60):
        left -= 1
        dones = (left == 0).tolist()
        left = np.where(left == 0, random.integers(1, 9, size=n_envs), left)
        successes = [float(random.random() < 0.3) if random.random() < 0.9 else None for _ in range(n_envs)]
        both.add(random.integers(-3, 4, size=n_envs).astype(float).tolist(), dones, successes)
        available = min(t + 1, -(-n_steps // n_envs), buffer_size)
        expected = both.slow(name, available)
        assert both.selected(name) == expected, t
        seen_known += len(expected)
    assert seen_known > 100


def test_by_hand() -> None:
    """T = 4, one environment: an episode of three steps, one of two, one that goes on."""
    both = Recording(4, 1, 100)
    for reward, done, success in [(1, False, 0), (2, False, 1), (4, True, 0), (8, False, 0), (16, True, 0), (32, False, 1)]:
        both.add([float(reward)], [done], [float(success)])
    assert both.selected("step_success") == [(20, 0), (30, 0), (40, 0), (50, 1)]
    assert both.selected("episode_success") == [(20, 1), (30, 0), (40, 0)]
    assert both.selected("episode_return") == [(20, 7), (30, 24), (40, 24)]


def test_an_episode_longer_than_the_window_fills_all_of_it() -> None:
    both = Recording(3, 1, 100)
    for t in range(8):
        both.add([1.0], [t == 7], [float(t == 0)])
        if t < 7:
            assert both.selected("episode_return") == both.selected("episode_success") == []
    assert both.selected("episode_return") == [(50, 8), (60, 8), (70, 8)]  # the whole episode's return
    assert both.selected("episode_success") == [(50, 1), (60, 1), (70, 1)]


def test_steps_without_a_report_are_unknown_and_episodes_without_one_are_failures() -> None:
    both = Recording(10, 1, 100)
    both.add([1.0], [False], [None])
    both.add([1.0], [True], [1.0])
    both.add([1.0], [True], [None])
    assert both.selected("step_success") == [(10, 1)]
    assert both.selected("episode_success") == [(0, 1), (10, 1), (20, 0)]
    assert both.selected("episode_return") == [(0, 2), (10, 2), (20, 1)]
    both.add([1.0], [False], [None])  # of an episode that has not ended, nothing is known
    assert both.selected("episode_success") == [(0, 1), (10, 1), (20, 0)]
    assert step_success({}) is None and step_success({"is_success": True}) == 1.0
    assert step_success({"success": 0.0, "is_success": True}) == 0.0  # the step's own comes first


def test_nan_is_no_report() -> None:
    assert step_success({"success": float("nan"), "is_success": True}) == 1.0
    recording = Recording(4, 1, 4)
    for done in (False, True):
        recording.add([1.0], [done], [float("nan")])
    assert recording.selected("step_success") == []
    assert recording.window.best_known(recording.buffer) == "episode_return"


@pytest.mark.parametrize("report", [np.nan, th.tensor(np.nan), np.zeros(2), {"arm": True}, "yes"])
def test_what_is_not_one_number_is_no_report(report: Any) -> None:
    both = Recording(4, 1, 4)
    for _ in range(4):
        both.add([1.0], [True], [report])
    assert both.selected("step_success") == both.selected("episode_success") == []
    assert both.window.best_known(both.buffer) == "episode_return"


def test_the_window_of_several_environments_holds_t_steps_in_all() -> None:
    for n_steps, n_envs, rows in ((10, 1, 10), (10, 2, 5), (10, 3, 4), (1, 4, 1)):
        both = Recording(n_steps, n_envs, 100)
        for _ in range(20):
            both.add([0.0] * n_envs, [True] * n_envs, [1.0] * n_envs)
        assert len(both.selected("step_success")) == rows * n_envs


def test_a_full_memory_optimized_buffer_has_overwritten_its_oldest_observation() -> None:
    both = Recording(100, 1, 6, optimize_memory_usage=True, handle_timeout_termination=False)
    for t in range(10):
        both.add([1.0], [True], [float(t % 2)])
        expected = [(i * 10, float(i % 2)) for i in range(max(0, t - 4), t + 1)]
        assert both.selected("step_success") == expected


def test_broken_off_episodes_stay_unknown() -> None:
    both = Recording(10, 2, 100)
    both.add([1.0, 1.0], [False, False], [1.0, 1.0])
    both.add([1.0, 1.0], [False, True], [0.0, 0.0])
    both.window.break_episodes()
    both.add([5.0, 5.0], [False, False], [0.0, 0.0])
    both.add([5.0, 5.0], [True, True], [0.0, 0.0])
    assert both.selected("episode_return") == [(1, 2), (11, 2), (20, 10), (21, 10), (30, 10), (31, 10)]
    assert both.selected("episode_success") == [(1, 1), (11, 1), (20, 0), (21, 0), (30, 0), (31, 0)]
    assert len(both.selected("step_success")) == 8


def test_an_episode_that_another_environment_cuts_off_is_neither_success_nor_failure() -> None:
    both = Recording(10, 2, 100)
    both.add([1.0, 1.0], [True, False], [1.0, 0.0])
    infos: list[dict[str, Any]] = [{"success": 0.0}, {"success": 0.0, "cut_off": True}]
    both.buffer.add(*(np.array([[20.0], [21.0]]),) * 2, np.zeros((2, 1)), np.ones(2), np.array([True, True]), infos)
    both.window.add(np.ones(2), np.array([True, True]), infos)
    assert both.selected("episode_success") == [(0, 1), (20, 0)]
    assert both.selected("episode_return") == [(0, 1), (20, 1)]
    assert len(both.selected("step_success")) == 4  # what the environment says of a step stands
    both.add([3.0, 3.0], [True, True], [0.0, 1.0])
    assert both.selected("episode_return") == [(0, 1), (20, 1), (10, 3), (11, 3)]  # nothing is carried over


def test_clear() -> None:
    both = Recording(10, 1, 100)
    both.add([3.0], [False], [1.0])
    both.window.clear()
    for name in NAMES:
        assert both.selected(name) == []
    both.add([1.0], [True], [0.0])
    assert both.selected("episode_return") == [(10, 1)]  # without the 3 of before
    assert both.selected("episode_success") == [(10, 0)]


def test_custom_metric() -> None:
    calls: list[tuple[float, bool, dict[str, Any]]] = []

    def metric(reward: float, done: bool, info: dict[str, Any]) -> float:
        calls.append((reward, done, info))
        return reward * 2 + done

    both = Recording(3, 2, 100, metric)
    both.add([1.0, 2.0], [False, True], [1.0, None])
    both.add([3.0, 4.0], [True, False], [0.0, 0.0])
    both.add([5.0, 6.0], [False, False], [0.0, 0.0])
    assert both.selected("custom") == [(10, 7), (11, 8), (20, 10), (21, 12)]
    assert calls[:2] == [(1.0, False, {"success": 1.0}), (2.0, True, {})]
    assert all(type(reward) is float and type(done) is bool for reward, done, _ in calls)
    assert Recording(3, 1, 10).selected("custom") == []


def test_state_dict_round_trip() -> None:
    both = Recording(5, 2, 100)
    for t in range(9):
        both.add([float(t), 2.0], [t % 4 == 3, t % 3 == 2], [float(t % 2), 0.0])
    before = {name: both.selected(name) for name in NAMES}
    state = both.window.state_dict()
    both.window = GoalWindow(5, 2)
    both.window.load_state_dict(state)
    assert {name: both.selected(name) for name in NAMES} == before and all(before.values())
    # The episodes under way were not saved: their earlier steps stay unknown
    both.add([100.0, 100.0], [True, True], [1.0, 1.0])
    assert [each for each in both.selected("episode_return") if each[0] >= 80] == [(81, 6), (90, 100), (91, 100)]
    # The saved state is not the window's own memory
    assert not np.isnan(state["metrics"]["step_success"].numpy()).all()
    saved = state["metrics"]["step_success"].clone()
    both.window.add(np.zeros(2), np.zeros(2, dtype=bool), [{"success": 7.0}] * 2)
    assert th.equal(saved.nan_to_num(), state["metrics"]["step_success"].nan_to_num())


@pytest.mark.parametrize("n_steps", [5, 12, 30])
@pytest.mark.parametrize("n_added", [4, 17])
def test_state_of_another_length_gives_its_last_steps(n_steps: int, n_added: int) -> None:
    """From a window as long as the buffer, as if the window had been of the other length from the beginning."""
    long, own = Recording(20, 1, 20), Recording(n_steps, 1, 20)
    for t in range(n_added):
        for each in (long, own):
            each.add([float(t)], [t % 4 == 3], [float(t % 2)])
    expected = {name: own.selected(name) for name in NAMES}
    own.window = GoalWindow(n_steps, 1)
    own.window.load_state_dict(long.window.state_dict())
    assert {name: own.selected(name) for name in NAMES} == expected and all(expected.values())


def test_state_of_another_number_of_environments_is_ignored() -> None:
    both = Recording(6, 1, 100)
    both.add([1.0], [True], [1.0])
    other = GoalWindow(6, 2)
    other.load_state_dict(both.window.state_dict())
    assert other.rows == 0 and np.isnan(other.metrics["step_success"]).all()


# What "auto" takes


def test_success_reported_at_the_last_step_of_an_episode_is_the_episodes() -> None:
    """As SB3 asks for it: a metric of the step would know one step of each episode."""
    both = Recording(100, 1, 100)
    for t in range(60):
        both.add([1.0], [t % 10 == 9], [float(t == 19) if t % 10 == 9 else None])
    assert both.window.best_known(both.buffer) == "episode_success"
    assert both.selected("episode_success") == [(t * 10, float(10 <= t < 20)) for t in range(60)]
    assert len(both.selected("step_success")) == 6


def test_success_reported_only_where_it_happens_leaves_the_other_episodes_as_failures() -> None:
    both = Recording(100, 1, 100)
    for t in range(60):
        both.add([1.0], [t % 10 == 9], [1.0 if t == 24 else None])
        # Nothing is known of success before the first; then all that has ended
        assert both.window.best_known(both.buffer) == ("episode_success" if t >= 24 else "episode_return")
    assert both.selected("episode_success") == [(t * 10, float(20 <= t < 30)) for t in range(60)]


@pytest.mark.parametrize(("missing", "expected"), [(0, "step_success"), (6, "step_success"), (7, "episode_success")])
def test_success_of_the_step_where_nearly_all_steps_report_it(missing: int, expected: str) -> None:
    both = Recording(100, 1, 100)
    for t in range(60):
        both.add([1.0], [t % 10 == 9], [None if t < missing else float(t % 3 == 0)])
    assert both.window.best_known(both.buffer) == expected


def test_no_success_means_the_return() -> None:
    both = Recording(100, 1, 100)
    assert both.window.best_known(both.buffer) == "episode_return"
    for t in range(30):
        both.add([1.0], [t % 10 == 9], [None])
    assert both.window.best_known(both.buffer) == "episode_return"


def test_the_success_of_a_sequences_episode_is_not_that_of_its_steps() -> None:
    """A sequence adds "is_success" to all steps after a report; what its task says of a step is "success"."""
    assert step_success({"is_success": True}, of_sequence=True) is None
    assert step_success({"is_success": True, "success": 0.0}, of_sequence=True) == 0.0
    assert step_success({"boundary": False, "is_success": True}) == 1.0
