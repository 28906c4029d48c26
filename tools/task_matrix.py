"""
Task matrix: SAC trained on one Meta-World task, success on all of the tasks every 10 000 steps.

One process trains one agent after another; several processes can share a folder. What is finished is skipped, what was
interrupted resumes at its last row.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_nbsp.algorithms import ContinualSAC
from sb3_nbsp.tasks.metaworld import make_metaworld_task, metaworld_cycle

TASKS = ["coffee-button", "drawer-close", "handle-press", "handle-press-side", "door-close", "button-press", "faucet-open",
         "faucet-close", "plate-slide", "reach", "window-close"]  # fmt: skip
HORIZON = 200
POLICIES = ("sampled", "deterministic")
COLUMNS = ["task", "seed", "step", "policy", "ent_coef", "seconds", *TASKS]


class Evaluation:
    """Success rate on every task, the tasks side by side so that the policy acts for all of them at once."""

    def __init__(self, n_episodes: int) -> None:
        self.n_episodes = n_episodes
        self.envs = [make_metaworld_task(task, horizon=HORIZON) for task in TASKS]

    def __call__(self, act, seed: int) -> dict[str, float]:
        successes = np.zeros(len(TASKS))
        for episode in range(self.n_episodes):
            first = [env.reset(seed=seed + i if episode == 0 else None)[0] for i, env in enumerate(self.envs)]
            observations = np.array(first, dtype=np.float32)
            running = np.ones(len(TASKS), dtype=bool)
            for _ in range(HORIZON):
                playing = np.flatnonzero(running)
                if len(playing) == 0:
                    break
                for i, action in zip(playing, act(observations[playing]), strict=True):
                    observations[i], _, terminated, truncated, info = self.envs[i].step(action)
                    if info["success"] > 0:
                        successes[i] += 1
                    running[i] = not (info["success"] > 0 or terminated or truncated)
        return dict(zip(TASKS, (successes / self.n_episodes).tolist(), strict=True))


class Measure(BaseCallback):
    def __init__(self, evaluation: Evaluation, folder: Path, task: str, seed: int, every: int) -> None:
        super().__init__()
        self.evaluation, self.folder, self.task, self.seed, self.every = evaluation, folder, task, seed, every

    def _on_training_start(self) -> None:
        self.started = time.perf_counter()
        if self.num_timesteps == 0:
            self.measure()

    def _on_rollout_start(self) -> None:
        if self.num_timesteps > 0 and self.num_timesteps % self.every == 0:
            self.measure()
            self.save()

    def _on_training_end(self) -> None:
        self._on_rollout_start()
        (self.folder / "finished").touch()

    def _on_step(self) -> bool:
        return True

    def measure(self) -> None:
        streams = th.get_rng_state(), np.random.get_state()
        seconds = round(time.perf_counter() - self.started)
        ent_coef = round(float(th.exp(self.model.log_ent_coef.detach())), 4)
        path = self.folder / "success.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            for policy in POLICIES:
                rates = self.evaluation(
                    lambda seen, policy=policy: self.model.predict(seen, deterministic=policy == "deterministic")[0],
                    1000 + 100 * self.seed,
                )
                row = {"task": self.task, "seed": self.seed, "step": self.num_timesteps, "policy": policy}
                writer.writerow({**row, "ent_coef": ent_coef, "seconds": seconds, **rates})
        th.set_rng_state(streams[0])
        np.random.set_state(streams[1])

    def save(self) -> None:
        self.model.save(self.folder / f"model_{self.num_timesteps}.zip")
        self.model.save_replay_buffer(self.folder / "buffer.tmp.pkl")
        os.replace(self.folder / "buffer.tmp.pkl", self.folder / "buffer.pkl")
        (self.folder / "saved.tmp").write_text(str(self.num_timesteps))
        os.replace(self.folder / "saved.tmp", self.folder / "saved")


def keep_rows_until(path: Path, step: int) -> None:
    """Of rows after the last saved step, the resumed run writes its own."""
    if path.exists():
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)


def train(folder: Path, task: str, seed: int, steps: int, evaluation: Evaluation) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    env = metaworld_cycle([task], horizon=HORIZON, cycles=1, steps_per_task=10**7, mastery_threshold=None)
    saved = int((folder / "saved").read_text()) if (folder / "saved").exists() else 0
    keep_rows_until(folder / "success.csv", saved if saved else -1)
    if saved:
        model = ContinualSAC.load(folder / f"model_{saved}.zip", env=env, device="cpu")
        model.load_replay_buffer(folder / "buffer.pkl")
        env.reset(seed=1_000_003 * (seed + 1) + saved)
    else:
        model = ContinualSAC("MlpPolicy", env, learning_rate=3e-4, learning_starts=5000, batch_size=256, seed=seed,
                             buffer_size=100_000, policy_kwargs={"net_arch": [256, 256]}, device="cpu")  # fmt: skip
    measure = Measure(evaluation, folder, task, seed, every=10_000)
    model.learn(steps - saved, callback=measure, reset_num_timesteps=not saved)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--n-eval-episodes", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("task_matrix"))
    args = parser.parse_args()
    th.set_num_threads(1)
    evaluation = Evaluation(args.n_eval_episodes)
    if not (args.out / "random.csv").exists():
        args.out.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        rates = evaluation(lambda seen: generator.uniform(-1, 1, (len(seen), 4)).astype(np.float32), 1000)
        with (args.out / "random.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, TASKS)
            writer.writeheader()
            writer.writerow(rates)
    for seed in args.seeds:
        for task in args.tasks:
            folder = args.out / f"{task}_seed{seed}"
            lock = folder / "running"
            if (folder / "finished").exists() or (lock.exists() and Path(f"/proc/{lock.read_text()}").exists()):
                continue
            folder.mkdir(parents=True, exist_ok=True)
            lock.write_text(str(os.getpid()))
            print(f"{task}, seed {seed}", flush=True)
            train(folder, task, seed, args.steps, evaluation)


if __name__ == "__main__":
    main()
