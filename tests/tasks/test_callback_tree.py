"""Callbacks inside callbacks, and the end of a sequence as it is told to people."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps, ProgressBarCallback
from stable_baselines3.common.monitor import Monitor

from sb3_nbsp import P3O, ContinualSAC
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence

MakeSequence = Callable[..., TaskSequence]
Options = dict[str, Any]


def agent(cls: type, env: TaskSequence, **kwargs: Any) -> Any:
    on_policy = {"n_steps": 4, "batch_size": 4, "n_epochs": 1}
    off_policy = {"learning_starts": 4, "batch_size": 4, "buffer_size": 200}
    options = off_policy if cls is ContinualSAC else on_policy
    return cls("MlpPolicy", env, policy_kwargs={"net_arch": [4]}, device="cpu", **options, **kwargs)


@pytest.mark.parametrize("nest", ["every", "after_eval", "best", "list"])
def test_an_evaluation_that_would_not_see_every_step_is_refused_at_the_start(
    make_sequence: MakeSequence, easy: Options, nest: str
) -> None:
    env = make_sequence({"a": easy})
    evaluation = SequenceEvaluation(progress_bar=False)
    callback = {
        "every": lambda: EveryNTimesteps(10, evaluation),
        "after_eval": lambda: EvalCallback(Monitor(env), callback_after_eval=evaluation),
        "best": lambda: [EvalCallback(Monitor(env), callback_on_new_best=evaluation)],
        "list": lambda: CallbackList([EveryNTimesteps(10, CallbackList([evaluation]))]),
    }[nest]()
    model = agent(PPO, env)
    with pytest.raises(ValueError, match=r"SequenceEvaluation must see every step and cannot be inside (EveryN|EvalC)"):
        model.learn(20, callback)
    assert model.num_timesteps == 0


def test_beside_other_callbacks_and_in_lists_it_works(make_sequence: MakeSequence, easy: Options) -> None:
    evaluation = SequenceEvaluation(n_eval_episodes=1, progress_bar=False)
    beside = EveryNTimesteps(3, EvalCallback(Monitor(make_sequence({"a": easy})), verbose=0, warn=False))
    agent(PPO, make_sequence({"a": easy, "b": easy}, mastery_window=2)).learn(
        40, CallbackList([CallbackList([evaluation]), beside])
    )
    assert evaluation.matrix is not None
    assert len(evaluation.matrix.rows) == 4


class Bar(BaseCallback):
    """Keeps the progress bar of learn()."""

    def _on_training_end(self) -> None:
        lists = [self.locals["callback"]]
        while lists:
            each = lists.pop()
            lists += getattr(each, "callbacks", [])
            if isinstance(each, ProgressBarCallback):
                self.bar = each.pbar

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("cls", [PPO, P3O, ContinualSAC])
@pytest.mark.parametrize("evaluated", [True, False])
def test_the_end_of_a_sequence_is_said_once_and_ends_the_bar(
    make_sequence: MakeSequence, easy: Options, cls: type, evaluated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if cls is PPO and not evaluated:
        pytest.skip("an agent of SB3 does not know of sequences")
    bar = Bar()
    callbacks = [bar, SequenceEvaluation(n_eval_episodes=1, progress_bar=False)] if evaluated else [bar]
    model = agent(cls, make_sequence({"a": easy, "b": easy}, mastery_window=2))
    model.learn(1000, callbacks, progress_bar=True)
    assert model.num_timesteps < 30
    assert bar.bar.n == bar.bar.total
    assert capsys.readouterr().out.count("The task sequence is over: training ends at step") == 1


@pytest.mark.parametrize("cls", [P3O, ContinualSAC])
def test_the_bar_says_phase_and_task(
    make_sequence: MakeSequence, easy: Options, cls: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("stable_baselines3.common.callbacks.tqdm.set_description", lambda _, text: said.append(text))
    model = agent(cls, make_sequence({"a": easy, "b": easy}, mastery_window=2, cycles=2))
    model.learn(1000, progress_bar=True)
    assert said == [f"phase {i} of 4: {task}" for i, task in enumerate("abab", start=1)]
    model.learn(4, progress_bar=True)  # the sequence begins again
    assert said[4:] == ["phase 1 of 4: a"]
    by_hand = agent(cls, Monitor(gym.make("Pendulum-v1")))
    by_hand.learn(4, progress_bar=True)
    assert not said[5:]
    by_hand.start_phase("swing")
    by_hand.learn(4, progress_bar=True)
    assert said[5:] == ["phase 2: swing"]
