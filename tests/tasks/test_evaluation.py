import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from scripted_tasks import ScriptedTask
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_nbsp import ContinualSAC
from sb3_nbsp.tasks import SequenceCheckpoint, SequenceEvaluation, SuccessMatrix, TaskSequence, latest_checkpoint
from sb3_nbsp.tasks.policy_evaluation import evaluation_seed

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]


def agent(env: Any, cls: type[SAC] = SAC, **kwargs: Any) -> SAC:
    options = {"learning_starts": 4, "batch_size": 4, "buffer_size": 200, "policy_kwargs": {"net_arch": [8]}, "device": "cpu"}
    return cls("MlpPolicy", env, seed=0, **{**options, **kwargs})


@pytest.fixture
def two_tasks(make_sequence: MakeSequence, easy: Options, hard: Options) -> Callable[[], TaskSequence]:
    """
    Episodes of two steps. Task a is mastered after 3 episodes, b is left after 20 steps: in two cycles
    the boundaries are at the steps 6, 26, 32 and 52.
    """
    return lambda: make_sequence({"a": easy, "b": hard}, mastery_window=3, steps_per_task=20)


BOUNDARIES = [6, 26, 32, 52]


class Memory(KVWriter):
    """Keeps what the logger writes."""

    def __init__(self) -> None:
        self.written: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.written.append((step, dict(key_values)))

    def close(self) -> None:
        pass


class AtBoundaries(BaseCallback):
    """Calls a function at the last step of every phase, behind the evaluation."""

    def __init__(self, function: Callable[[BaseCallback, dict[str, Any]], None]) -> None:
        super().__init__()
        self.function = function

    def _on_step(self) -> bool:
        if self.locals["infos"][0]["boundary"]:
            self.function(self, self.locals["infos"][0])
        return True


def test_whole_sequence(two_tasks: Callable[[], TaskSequence], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines_at = {}

    def look(callback: BaseCallback, info: dict[str, Any]) -> None:
        lines_at[callback.num_timesteps] = (tmp_path / "success_matrix.csv").read_text().splitlines()

    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=2, progress_bar=False, verbose=1)
    model, memory = agent(two_tasks()), Memory()
    model.set_logger(Logger(folder=None, output_formats=[memory]))
    model.learn(1000, [evaluation, AtBoundaries(look)])

    # Stock SAC stops at the step behind the sequence's end
    assert model.num_timesteps == 53

    # The matrix is on the disk at each phase's end
    rows = ["phase,task,a,b", "0,a,1.0,0.0", "1,b,1.0,0.0", "2,a,1.0,0.0", "3,b,1.0,0.0"]
    assert lines_at == {step: rows[: phase + 2] for phase, step in enumerate(BOUNDARIES)}
    assert SuccessMatrix.load(tmp_path / "success_matrix.csv") == evaluation.matrix

    # It is in the log, at its own step. ASR: 1, then 1/2 in every phase
    evaluated = [(step, values) for step, values in memory.written if "eval/ASR" in values]
    assert [step for step, _ in evaluated] == BOUNDARIES
    assert [values["eval/phase"] for _, values in evaluated] == [1, 2, 3, 4]
    assert [(values["eval/a"], values["eval/b"]) for _, values in evaluated] == [(1, 0)] * 4
    assert [values["eval/ASR"] for _, values in evaluated] == pytest.approx([1, 0.75, 2 / 3, 0.625])
    assert [values["eval/FWT"] for _, values in evaluated] == pytest.approx([1, 0.5, 2 / 3, 0.5])
    assert math.isnan(evaluated[0][1]["eval/FM"])
    assert [values["eval/FM"] for _, values in evaluated[1:]] == [0, 0, 0]
    assert "Step 26: phase 2 of 4 (b) is over: a 1.00, b 0.00" in capsys.readouterr().out

    # A line for every training episode
    header, *lines = (tmp_path / "training.csv").read_text().splitlines()
    assert header == "step,phase,task,success,return,length"
    columns = [line.split(",") for line in lines]
    assert [int(row[0]) for row in columns] == list(range(2, 53, 2))
    assert [row[1:4] for row in columns] == (
        [["0", "a", "True"]] * 3 + [["1", "b", "False"]] * 10 + [["2", "a", "True"]] * 3 + [["3", "b", "False"]] * 10
    )
    assert {row[5] for row in columns} == {"2"}
    # The reward is the action, in [-1, 1]
    assert all(-2 <= float(row[4]) <= 2 and float(row[4]) != 0 for row in columns)


def test_rates_equal_a_slow_evaluation(make_sequence: MakeSequence, easy: Options) -> None:
    env = make_sequence({"a": easy, "c": {"success": "sign"}}, mastery_threshold=None, steps_per_task=20)
    expected = []

    def slow(callback: BaseCallback, info: dict[str, Any]) -> None:
        rates = []
        for index, maker in enumerate(env.task_makers.values()):
            task = maker()
            seed = evaluation_seed(77, index)
            successes = 0
            for episode in range(9):
                observation, _ = task.reset(seed=seed if episode == 0 else None)
                any_success, over = False, False
                while not over:
                    action, _ = callback.model.predict(observation, deterministic=True)
                    observation, _, terminated, truncated, task_info = task.step(action)
                    any_success |= task_info["success"] > 0
                    over = terminated or truncated
                successes += any_success
            rates.append(successes / 9)
        expected.append(rates)

    evaluation = SequenceEvaluation(n_eval_episodes=9, seed=77, progress_bar=False)
    agent(env).learn(1000, [evaluation, AtBoundaries(slow)])
    assert len(expected) == 4
    assert evaluation.matrix is not None
    np.testing.assert_allclose(evaluation.matrix.rows, expected)
    assert {rates[0] for rates in expected} == {1}
    assert any(0 < rates[1] < 1 for rates in expected)


@pytest.mark.parametrize("seed", [999, 1000])
def test_no_episode_starts_as_one_of_training_or_of_another_task(make_sequence: MakeSequence, seed: int) -> None:
    starts: dict[str, list[float]] = {"training": [], "evaluation": []}
    reset = ScriptedTask.reset

    def recording_reset(task: ScriptedTask, **kwargs: Any) -> Any:
        observation, info = reset(task, **kwargs)
        starts[now].append(float(observation[2]))
        return observation, info

    class Evaluation(SequenceEvaluation):
        def _evaluate(self, info: dict[str, Any]) -> None:
            nonlocal now
            now = "evaluation"
            super()._evaluate(info)
            now = "training"

    now = "training"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedTask, "reset", recording_reset)
        env = make_sequence({"a": {}, "b": {}}, cycles=1, steps_per_task=10)
        model = agent(env)
        model.set_random_seed(seed)
        model.seed = seed
        with pytest.warns(UserWarning, match="mean return"):
            model.learn(100, Evaluation(n_eval_episodes=5, progress_bar=False))
    phases = np.reshape(starts["evaluation"], (2, 2, 6)).tolist()  # phase, task, resets
    assert phases[0] == phases[1], "the same episodes after each phase"
    assert not set(starts["training"]).intersection(starts["evaluation"])
    assert not set(phases[0][0]).intersection(phases[0][1])


def test_seeds_of_the_evaluation_are_none_of_training() -> None:
    seed = evaluation_seed(1000, 3)
    assert seed == evaluation_seed(1000, 3, training_seed=5) < 2**31
    other = evaluation_seed(1000, 3, training_seed=seed - 7)
    assert other not in range(seed - 7, seed + 9_000)
    # Training has its own seed and the 9999 that follow
    is_taken = [evaluation_seed(1000, 3, seed - before) != seed for before in (-1, 0, 9_999, 10_000)]
    assert is_taken == [False, True, True, False]
    assert len({evaluation_seed(1000, index) for index in range(50)}) == 50
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0, not -1"):
        SequenceEvaluation(seed=-1)


def test_evaluation_does_not_touch_the_training(make_sequence: MakeSequence, easy: Options) -> None:
    def trained(callbacks: list[BaseCallback]) -> tuple[dict[str, th.Tensor], th.Tensor, np.ndarray]:
        env = make_sequence({"a": easy, "c": {"success": "sign"}}, mastery_threshold=None, steps_per_task=10, cycles=1)
        model = agent(env)
        model.learn(20, callbacks)
        return model.policy.state_dict(), th.get_rng_state(), np.random.get_state()[1]

    alone = trained([])
    evaluated = trained([SequenceEvaluation(n_eval_episodes=3, progress_bar=False)])
    for name, value in alone[0].items():
        assert th.equal(value, evaluated[0][name]), name
    assert th.equal(alone[1], evaluated[1])
    assert (alone[2] == evaluated[2]).all()


def test_tasks_without_success(make_sequence: MakeSequence, tmp_path: Path) -> None:
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=2, progress_bar=False)
    model = agent(make_sequence({"a": {}, "b": {}}, cycles=1, steps_per_task=4))
    with pytest.warns(UserWarning, match="do not report success: the mean return of an episode") as warned:
        model.learn(100, evaluation)
    assert len([each for each in warned if "mean return" in str(each.message)]) == 1
    assert model.num_timesteps == 9
    matrix = SuccessMatrix.load(tmp_path / "success_matrix.csv")
    assert matrix.phase_tasks == ["a", "b"]
    assert all(-2 <= value <= 2 and value not in (0, 1) for row in matrix.rows for value in row)
    assert (tmp_path / "training.csv").read_text().splitlines()[1].startswith("2,0,a,,")  # success is left blank


def test_an_agent_that_does_not_tell_what_its_steps_return(two_tasks: Callable[[], TaskSequence]) -> None:
    contrib = pytest.importorskip("sb3_contrib")
    agent = contrib.ARS("LinearPolicy", two_tasks(), n_delta=1, device="cpu")
    with pytest.raises(ValueError, match="SequenceEvaluation cannot follow ARS"):
        agent.learn(100, SequenceEvaluation())
    assert agent.num_timesteps == 1


def test_no_sequence() -> None:
    with pytest.raises(ValueError, match="needs a task sequence"):
        agent("Pendulum-v1").learn(10, SequenceEvaluation(progress_bar=False))


@pytest.mark.parametrize("n_eval_episodes", [0, -1])
def test_no_episodes(n_eval_episodes: int) -> None:
    with pytest.raises(ValueError, match=f"n_eval_episodes must be a whole number of at least 1, not {n_eval_episodes}"):
        SequenceEvaluation(n_eval_episodes=n_eval_episodes)


def at_third_phase(env: TaskSequence, num_timesteps: int) -> SAC:
    """An agent that has been trained up to the third phase."""
    env.set_progress({**env.get_progress(), "phase": 2, "phase_steps": 4, "successes": [True, True]})
    model = agent(env)
    model.num_timesteps = num_timesteps
    return model


OLD_TRAINING = [
    "step,phase,task,success,return,length",
    *(f"{line},0.5,2" for line in ("9,0,a,True", "26,1,b,False", "30,2,a,True", "31,2,a,True", "99,3,b,True")),
]


def test_resumed_run_keeps_its_history(two_tasks: Callable[[], TaskSequence], tmp_path: Path) -> None:
    (tmp_path / "success_matrix.csv").write_text("phase,task,a,b\n0,a,0.1,0.2\n1,b,0.3,0.4\n2,a,0.5,0.6\n3,b,0.7,0.8\n")
    (tmp_path / "training.csv").write_text("\n".join(OLD_TRAINING) + "\n")
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
    at_third_phase(two_tasks(), num_timesteps=30).learn(1000, evaluation, reset_num_timesteps=False)
    # What came after the checkpoint is replaced: one more episode masters a, then twenty steps of b
    assert SuccessMatrix.load(tmp_path / "success_matrix.csv").rows == [[0.1, 0.2], [0.3, 0.4], [1, 0], [1, 0]]
    lines = (tmp_path / "training.csv").read_text().splitlines()
    assert lines[:4] == OLD_TRAINING[:4]
    assert [line.split(",")[:3] for line in lines[4:]] == (
        [["32", "2", "a"]] + [[str(step), "3", "b"] for step in range(34, 53, 2)]
    )  # fmt: skip


def test_later_phases_are_unknown_until_they_end(two_tasks: Callable[[], TaskSequence], tmp_path: Path) -> None:
    (tmp_path / "success_matrix.csv").write_text("phase,task,a,b\n0,a,0.1,0.2\n1,b,0.3,0.4\n2,a,0.5,0.6\n")
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
    at_third_phase(two_tasks(), num_timesteps=30).learn(1, evaluation, reset_num_timesteps=False)
    assert evaluation.matrix is not None
    assert evaluation.matrix.rows == [[0.1, 0.2], [0.3, 0.4]]


def test_new_run_in_a_used_folder_begins_anew(two_tasks: Callable[[], TaskSequence], tmp_path: Path) -> None:
    (tmp_path / "success_matrix.csv").write_text("phase,task,a,b\n0,a,0.1,0.2\n1,b,0.3,0.4\n")
    (tmp_path / "training.csv").write_text("\n".join(OLD_TRAINING) + "\n")
    before = {name: (tmp_path / name).read_text() for name in ("success_matrix.csv", "training.csv")}
    with pytest.warns(
        UserWarning, match=r"results of another run; they are kept there as success_matrix-1\.csv and training-1"
    ):
        agent(two_tasks()).learn(8, SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False))
    assert SuccessMatrix.load(tmp_path / "success_matrix.csv").rows == [[1, 0]]
    assert {f"{stem}.csv": (tmp_path / f"{stem}-1.csv").read_text() for stem in ("success_matrix", "training")} == before
    lines = (tmp_path / "training.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "2", "4", "6", "8"]


def test_resumed_run_without_its_history(two_tasks: Callable[[], TaskSequence], tmp_path: Path) -> None:
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
    with pytest.warns(UserWarning, match="continues in phase 3, but how earlier phases ended is not known"):
        at_third_phase(two_tasks(), num_timesteps=30).learn(1000, evaluation, reset_num_timesteps=False)
    matrix = SuccessMatrix.load(tmp_path / "success_matrix.csv")
    assert matrix.phase_tasks == ["a", "b", "a", "b"]
    np.testing.assert_array_equal(matrix.rows, [[np.nan, np.nan]] * 2 + [[1, 0]] * 2)
    assert all(math.isnan(value) for value in matrix.metrics().values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("phase,task,a,c\n0,a,0.1,0.2\n", r"success_matrix\.csv is of the tasks \['a', 'c'\], but .* \['a', 'b'\]"),
        ("phase,task,a", r"success_matrix\.csv is of the tasks \['a'\]"),
        ("phase,task,a,b\n0,a,0.", r"success_matrix\.csv is no success matrix"),
    ],
)
def test_history_that_does_not_fit(two_tasks: Callable[[], TaskSequence], tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "success_matrix.csv").write_text(content)
    evaluation = SequenceEvaluation(tmp_path, n_eval_episodes=1, progress_bar=False)
    with pytest.raises(ValueError, match=message):
        at_third_phase(two_tasks(), num_timesteps=30).learn(1000, evaluation, reset_num_timesteps=False)
    assert (tmp_path / "success_matrix.csv").read_text() == content


def test_killed_run_continues_from_its_checkpoint(two_tasks: Callable[[], TaskSequence], tmp_path: Path) -> None:
    """With an agent of this package, which saves how far its sequence is."""

    def callbacks(folder: Path) -> list[BaseCallback]:
        return [SequenceEvaluation(folder, n_eval_episodes=1, progress_bar=False), SequenceCheckpoint(10, folder)]

    def history(folder: Path) -> tuple[list[list[str]], str]:
        lines = (folder / "training.csv").read_text().splitlines()
        return [line.split(",")[:4] for line in lines], (folder / "success_matrix.csv").read_text()

    uncut, killed = tmp_path / "uncut", tmp_path / "killed"
    model = agent(two_tasks(), ContinualSAC).learn(1000, callbacks(uncut))
    assert model.num_timesteps == 52  # it need not take another step to see that the sequence is over
    agent(two_tasks(), ContinualSAC).learn(37, callbacks(killed))
    assert history(killed)[0][-1][:2] == ["36", "3"]

    checkpoint = latest_checkpoint(killed)
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint_30_steps"
    model = ContinualSAC.load(checkpoint / "model.zip", env=two_tasks(), device="cpu")
    model.load_replay_buffer(checkpoint / "replay_buffer.pkl")
    model.learn(1000, callbacks(killed), reset_num_timesteps=False)
    assert model.num_timesteps == 52
    assert history(killed) == history(uncut)
