"""The zoo's periodic evaluation, by which ``best_model.zip`` is chosen."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_nbsp.zoo.checkpoints import WholeBestModel

# Added to the seed of training for the environments of the periodic evaluation
EVALUATION_SEED = 1_000_000


class FollowTraining(BaseCallback):
    """Ahead of ``EvalCallback``: puts its environment, which changes with its steps, where that of training is."""

    def __init__(self, evaluation: EvalCallback) -> None:
        super().__init__()
        self.evaluation = evaluation

    def _on_step(self) -> bool:
        if self.n_calls % self.evaluation.eval_freq == 0:
            age = self.training_env.get_attr("elapsed_steps", indices=0)[0]
            self.evaluation.eval_env.env_method("set_elapsed_steps", age)
        return True


def spread_tasks(env: VecEnv) -> None:
    """
    Let parallel environments that play the tasks of a sequence in turn begin with different ones: otherwise, a few episodes
    in many environments would all be of one task, and those of the next evaluation of another.

    :param env: environments of one sequence, not yet reset
    """
    rotates = env.get_attr("rotate")
    for index, progress in enumerate(env.env_method("get_progress")):
        if rotates[index]:
            begin = {**progress, "phase": index % len(progress["tasks"])}
            env.env_method("set_progress", begin, indices=index)


def keep_whole_best_model(evaluation: EvalCallback) -> None:
    """
    :param evaluation: SB3's callback, which from now on saves what belongs to its ``best_model.zip``, too
    """
    folder = evaluation.best_model_save_path
    if folder is not None:
        first = [] if evaluation.callback_on_new_best is None else [evaluation.callback_on_new_best]
        evaluation.callback_on_new_best = CallbackList([*first, WholeBestModel(folder)])
        evaluation.callback_on_new_best.parent = evaluation
