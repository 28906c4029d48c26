"""SB3's own evaluation of an agent that has to be told which task it plays."""

from __future__ import annotations

from collections.abc import Callable

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from typing_extensions import override

from sb3_nbsp.tasks.callback_tree import descendants
from sb3_nbsp.tasks.recognize import is_task_sequence


class ToldTasks(VecEnvWrapper):
    """
    Says at the start of every episode which task it is of.

    :param venv: a single task sequence
    :param tell: called with the name of the task
    """

    def __init__(self, venv: VecEnv, tell: Callable[[str], None]) -> None:
        super().__init__(venv)
        self.tell = tell

    @override
    def reset(self) -> VecEnvObs:
        observations = self.venv.reset()
        self.tell(self.unwrapped.reset_infos[0]["task"])
        return observations

    @override
    def step_wait(self) -> VecEnvStepReturn:
        found = self.venv.step_wait()
        if found[2][0]:
            self.tell(self.unwrapped.reset_infos[0]["task"])
        return found


def tell_evaluations(root: BaseCallback, tell: Callable[[str], None]) -> None:
    """
    Let SB3's ``EvalCallback`` tell the agent which task of a sequence it plays.

    :param root: the callback of ``learn()``
    :param tell: called with the name of the task
    :raises ValueError: if an evaluation plays several tasks at a time
    """
    for each in descendants(root):
        if not isinstance(each, EvalCallback) or not is_task_sequence(each.eval_env):
            continue
        if each.eval_env.num_envs > 1:
            raise ValueError(
                f"EvalCallback: its {each.eval_env.num_envs} environments may be at different tasks, but an agent that is "
                "told its task plays one at a time. Give one environment, or use SequenceEvaluation"
            )
        # The innermost, as SB3 compares the other wrappers with those of training
        outer, env = None, each.eval_env
        while isinstance(env, VecEnvWrapper) and not isinstance(env, ToldTasks):
            outer, env = env, env.venv
        if isinstance(env, ToldTasks):  # of an earlier call of learn(), perhaps of another agent
            env.tell = tell
        elif outer is None:
            each.eval_env = ToldTasks(env, tell)
        else:
            outer.venv = ToldTasks(env, tell)
