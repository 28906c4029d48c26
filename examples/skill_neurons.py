"""Train NBSPSAC on a cycle of two Meta-World tasks, then look at the skill neurons that it found."""

import argparse

import gymnasium as gym
import torch as th

from sb3_nbsp import NBSPSAC
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.tasks import SequenceEvaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs=2, default=["coffee-button", "handle-press"], help="names of the two tasks")
    parser.add_argument("--steps-per-task", type=int, default=100_000, help="a phase has at most this many steps")
    parser.add_argument("--learning-starts", type=int, default=5_000, help="random steps at each phase start")
    parser.add_argument("--identification-steps", type=int, default=10_000, help="steps on which skill neurons are found")
    parser.add_argument("--eval-episodes", type=int, default=20, help="episodes per task after each phase")
    args = parser.parse_args()
    th.set_num_threads(1)  # fastest for networks of this size

    env = gym.make("MW-Cycle-v0", tasks=args.tasks, cycles=1, horizon=200, steps_per_task=args.steps_per_task)
    model = NBSPSAC(
        "MlpPolicy",
        env,
        learning_starts=args.learning_starts,
        buffer_size=100_000,
        identification_steps=args.identification_steps,
        reset_ent_coef=True,
        seed=1,
    )
    evaluation = SequenceEvaluation(n_eval_episodes=args.eval_episodes, verbose=1)
    model.learn(2 * (args.steps_per_task + 200), callback=evaluation, progress_bar=True)

    first, second = model.all_interventions.find(GradientMasking).skill_neurons.values()
    for network in first:
        shared = int((first[network] & second[network]).sum())
        found = int(first[network].sum()), int(second[network].sum())
        print(f"{network}: {found[0]} skill neurons of {args.tasks[0]}, {found[1]} of {args.tasks[1]}, {shared} of both")


if __name__ == "__main__":
    main()
