"""What agents that have learned nothing achieve, measured once and shown beside what methods do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from handmade import TASKS, kept, write_comparison, write_run
from small_comparison import SMALL

from sb3_nbsp import NBSPSAC
from sb3_nbsp.benchmark.baselines import RANDOM, UNTRAINED, RandomAgent, measure_baselines, read_baselines
from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import forgetting_figure, metrics_figure
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.table import build_tables
from sb3_nbsp.tasks.metaworld import make_metaworld_task

HORIZON = 60
SUCCESS = {RANDOM: {TASKS[0]: 0.25, TASKS[1]: 0.5}, UNTRAINED: {TASKS[0]: 0.0, TASKS[1]: 0.25}}


def small_comparison(seeds: list[int], **changes: object) -> Comparison:
    env_kwargs = {"steps_per_task": 200, "horizon": HORIZON}
    options = {**SMALL, "env_kwargs": env_kwargs, "n_eval_episodes": 3, **changes}
    return Comparison(["CoffeeButton-HandlePress"], ["nbsp_sac"], seeds, **options)  # type: ignore[arg-type]


ENV_ID = "MW-CoffeeButton-HandlePress-laptop-v0"


def measure(comparison: Comparison, folder: Path) -> dict[str, dict[str, float]]:
    measure_baselines(comparison, folder, comparison.runs(folder))
    found: dict[str, dict[str, float]] = {RANDOM: {}, UNTRAINED: {}}
    for env_id, agent, task, rate in read_baselines(folder):
        assert env_id == ENV_ID
        found[agent][task] = rate
    return found


def success_of(act, task: str) -> float:
    """Success in three episodes of the same seed, one step at a time."""
    env = make_metaworld_task(task, horizon=HORIZON)
    successes = []
    for episode in range(3):
        observation, _ = env.reset(seed=1000 if episode == 0 else None)
        succeeded, over = False, False
        while not over:
            observation, _, terminated, truncated, info = env.step(act(observation))
            succeeded, over = succeeded or info["success"] > 0, terminated or truncated
        successes.append(succeeded)
    return float(np.mean(successes))


def test_a_random_agent_acts_on_dictionaries_of_observations() -> None:
    agent = RandomAgent(spaces.Box(-1, 1, (3,)))
    assert agent.predict({name: np.zeros((2, 4)) for name in "abc"})[0].shape == (2, 3)


def test_they_are_measured_once(tmp_path: Path) -> None:
    comparison = small_comparison([1, 2])
    success = measure(comparison, tmp_path)
    assert {agent: list(rates) for agent, rates in success.items()} == {RANDOM: TASKS, UNTRAINED: TASKS}
    env = make_metaworld_task(TASKS[0], horizon=HORIZON)
    random = RandomAgent(env.action_space)
    assert success[RANDOM][TASKS[0]] == success_of(lambda seen: random.predict(seen[None])[0][0], TASKS[0])
    networks = [
        NBSPSAC("MlpPolicy", env, seed=seed, buffer_size=1, policy_kwargs={"net_arch": [32, 32]}, device="cpu")
        for seed in comparison.seeds
    ]
    for task in TASKS:
        each = [
            success_of(lambda seen, model=model: model.predict(np.float32(seen), deterministic=True)[0], task)
            for model in networks
        ]
        assert success[UNTRAINED][task] == pytest.approx(np.mean(each))
    # Again, also with more seeds, they are read
    content = json.loads((tmp_path / "baselines.json").read_text())
    content[ENV_ID]["success"][RANDOM][TASKS[0]] = 0.123
    (tmp_path / "baselines.json").write_text(json.dumps(content))
    assert measure(small_comparison([1, 2, 3]), tmp_path)[RANDOM][TASKS[0]] == 0.123
    # As version 0.1 wrote them
    (tmp_path / "baselines.json").write_text(json.dumps(content[ENV_ID]))
    assert measure(small_comparison([1, 2, 3]), tmp_path)[RANDOM][TASKS[0]] == 0.123
    # Of other settings they say nothing
    assert measure(small_comparison([1], n_eval_episodes=2), tmp_path)[RANDOM][TASKS[0]] != 0.123


def test_the_table_has_a_row_for_each(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path, {"continual_sac": [0.5], "nbsp_sac": [1.0]})
    assert len(build_tables([load_results(folder)])[0].cells) == 2
    (folder / "baselines.json").write_text(json.dumps({ENV_ID: {"success": SUCCESS}}))
    table = build_tables([load_results(folder)])[0]
    # Phases: coffee-button, then handle-press, twice. ASR (0.25 + 3 * 0.375) / 4, FWT the mean of both tasks
    assert list(table.cells.iloc[2, :6]) == [RANDOM, "–", "0.34", "0.00", "0.38", "–"]
    assert list(table.cells.iloc[3, :6]) == [UNTRAINED, "–", "0.09", "0.00", "0.13", "–"]
    assert not table.bold[2:].any()  # an agent that learns nothing forgets nothing, and is not the best
    assert any(RANDOM in note and "without learning" in note for note in table.notes)


def test_figures_of_success_have_a_line_for_each(tmp_path: Path) -> None:
    write_comparison(tmp_path, {"continual_sac": [0.5]})
    (tmp_path / "baselines.json").write_text(json.dumps({ENV_ID: {"success": SUCCESS}}))
    results = load_results(tmp_path)
    for panel, task in zip(forgetting_figure(results).axes, TASKS, strict=True):
        lines = {line.get_label(): line.get_ydata()[0] for line in panel.lines if line.get_label() in SUCCESS}
        assert lines == {agent: rates[task] for agent, rates in SUCCESS.items()}
    asr, fm, fwt = metrics_figure(results).axes
    assert [[line.get_xdata()[0] for line in panel.lines if line.get_label() in SUCCESS] for panel in (asr, fm, fwt)] == [
        pytest.approx([0.34375, 0.09375]),
        [],
        pytest.approx([0.375, 0.125]),
    ]


def test_lines_beyond_1_are_seen(tmp_path: Path) -> None:
    """Where success is a return, an agent that has learned nothing can do best."""
    write_comparison(tmp_path, {"continual_sac": [0.5]})
    rates = {agent: {task: 3 * rate for task, rate in of.items()} for agent, of in SUCCESS.items()}
    (tmp_path / "baselines.json").write_text(json.dumps({ENV_ID: {"success": rates}}))
    figure = metrics_figure(load_results(tmp_path))
    for panel in (figure.axes[0], figure.axes[2]):
        highest = max(line.get_xdata()[0] for line in panel.lines if line.get_label() in SUCCESS)
        assert 1.03 < highest < panel.get_xlim()[1]


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    write_run(tmp_path, "nbsp_sac", 1, kept(1.0))
    for content in ({ENV_ID: {}}, {ENV_ID: 3}, {ENV_ID: {"success": [1]}}, {ENV_ID: {"success": {RANDOM: {"a": None}}}}):
        (tmp_path / "baselines.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"baselines\.json is damaged: delete it"):
            read_baselines(tmp_path)
