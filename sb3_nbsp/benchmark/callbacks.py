"""What a run does beside its training: it says how far it is, writes down its skill neurons and can be resumed."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback

from sb3_nbsp.benchmark.folder import RunFolder
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.networks import AgentNetwork
from sb3_nbsp.neurons.layers import split_by_layer
from sb3_nbsp.tasks import SequenceCheckpoint, SequenceEvaluation, latest_checkpoint
from sb3_nbsp.tasks.checkpoint import restore_statistics
from sb3_nbsp.tasks.lives import ends_game

PERIOD = 1.0  # seconds between two reports of progress


class Progress(BaseCallback):
    """
    Writes how far a run is: ``completed`` of ``total`` phases, or steps if the environment is no task sequence, a ``state``
    that changes all the time and a ``milestone`` that seldom changes.
    """

    def __init__(self, folder: RunFolder, n_timesteps: int | None = None) -> None:
        super().__init__()
        self.folder, self.n_timesteps = folder, n_timesteps
        self._written = 0.0

    def _on_step(self) -> bool:
        if time.monotonic() - self._written > PERIOD:
            self._on_training_end()
        return True

    def _on_training_end(self) -> None:
        self._written = time.monotonic()
        told = self._steps(self.n_timesteps) if self.n_timesteps else self._phases()
        self.folder.write_progress({**told, "step": self.num_timesteps})

    def _phases(self) -> dict[str, Any]:
        progress = self.training_env.env_method("get_progress", indices=0)[0]
        tasks, recent = progress["tasks"], progress["successes"]
        total, completed = len(tasks) * progress["cycles"], progress["phase"] + int(progress["sequence_over"])
        task = tasks[progress["phase"] % len(tasks)]
        reports = task in self.training_env.get_attr("report_success", indices=0)[0]
        success = f", success {sum(recent) / len(recent):.1f}" if recent and reports else ""
        state = "evaluation" if completed == total else f"{task}, step {self.num_timesteps:,}{success}"
        milestone = f"phase {min(completed + 1, total)} of {total} ({task})"
        return {"completed": completed, "total": total, "state": state, "milestone": milestone}

    def _steps(self, total: int) -> dict[str, Any]:
        returns = [episode["r"] for episode in self.model.ep_info_buffer or []]
        completed = min(self.num_timesteps, total)
        state = f"return {sum(returns) / len(returns):,.0f}" if returns else ""
        milestone = f"{100 * completed // total // 10 * 10} %"
        return {"completed": completed, "total": total, "state": state, "milestone": milestone}


class SkillNeurons(BaseCallback):
    """At the end of every phase, writes into the folder of the run which neurons are the skill neurons of masking."""

    def __init__(self, folder: RunFolder, masking: GradientMasking) -> None:
        super().__init__()
        self.folder, self.masking = folder, masking

    def _init_callback(self) -> None:
        self._written = max(self.masking.identified_in.values(), default=-1)

    def _on_rollout_start(self) -> None:
        self._write()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._write()

    def _write(self) -> None:
        new = {task: phase for task, phase in self.masking.identified_in.items() if phase > self._written}
        if not new:
            return
        self._written = max(new.values())
        entries = [
            {"phase": phase, "task": task, "networks": {each.name: self._of(task, each) for each in self.masking.networks}}
            for task, phase in new.items()
        ]
        sizes = {each.name: [(layer.name, layer.n_neurons) for layer in each.layers] for each in self.masking.networks}
        self.folder.write_neurons(sizes, min(new.values()), entries)

    def _of(self, task: str, network: AgentNetwork) -> dict[str, Any]:
        """By layer, the skill neurons and how many neurons are held back by now; histograms of the best ones."""
        parts = split_by_layer(self.masking.skill_neurons[task][network.name], network.layers)
        places = [{"layer": layer.name, "neuron": neuron} for layer in network.layers for neuron in range(layer.n_neurons)]
        return {
            "skill_neurons": {name: th.nonzero(part).flatten().tolist() for name, part in parts.items()},
            "masked": {layer.name: int((self.masking.masks[layer.name] < 1).sum()) for layer in network.layers},
            "histograms": [{**each, **places[each["neuron"]]} for each in self.masking.histograms[task][network.name]],
        }


class Retention(BaseCallback):
    """In the last phase, every so many steps, writes the success on every task. The evaluation has to come before."""

    def __init__(self, folder: RunFolder, evaluation: SequenceEvaluation, every: int) -> None:
        super().__init__()
        self.folder, self.evaluation, self.every = folder, evaluation, every
        self._rows: list[dict[str, float]] = []

    def _on_training_start(self) -> None:
        position = self.training_env.env_method("get_progress", indices=0)[0]
        self._last = self.training_env.get_attr("n_phases", indices=0)[0] - 1
        steps = position["phase_steps"] if position["phase"] == self._last else 0
        # Without what a killed run has played after its last checkpoint
        self._rows = [row for row in self.folder.retention() if row["step"] <= steps]
        self._reporting = self.evaluation.reporting

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        steps = self.training_env.get_attr("phase_steps", indices=0)[0]
        earlier, is_due = [*self._rows], info["phase"] == self._last and not info["boundary"] and steps % self.every == 0
        if is_due:
            self._rows.append({"step": steps, **self.evaluation.success_now()})
        if new := self.evaluation.reporting - self._reporting:
            # Returns stand for their success so far, as in the matrix
            self._reporting |= new
            for row in earlier:
                row.update(dict.fromkeys(new, 0.0))
        if is_due or (new and earlier):
            self.folder.write_retention(self._rows)
        return True


class Resumable(SequenceCheckpoint):
    """
    Saves checkpoints, and lets a run that was killed end as one that was not: after every checkpoint, training continues with
    a new episode and with random numbers that follow from the seed and the step, whether it was killed there or not.
    Checkpoints wait for the end of an episode, or break it off.
    """

    def __init__(self, seed: int, save_freq: int, folder: RunFolder, waits: bool = True) -> None:
        super().__init__(save_freq, folder.path)
        self.seed, self.waits = seed, waits
        self._episode_over = False

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._is_resumed = self.num_timesteps > 0

    def _on_rollout_start(self) -> None:
        last = self._last
        if (self._episode_over or not self.waits) and not self._is_resumed:
            super()._on_rollout_start()
        # Here in both cases, because with gSDE SB3 has just drawn random numbers
        if self._is_resumed or self._last != last:
            self._start_afresh()
            self._is_resumed = False

    def _on_step(self) -> bool:
        self._episode_over = bool(self.locals["dones"][0]) and ends_game(self.locals["infos"][0])
        return True

    def _start_afresh(self) -> None:
        assert self.model.env is not None
        normalizer, checkpoint = self.model.get_vec_normalize_env(), latest_checkpoint(self.folder)
        if self._is_resumed and normalizer is not None and checkpoint is not None:
            restore_statistics(normalizer, checkpoint)  # SB3 has reset the environment once more since then
        self.model.set_random_seed(int(np.random.SeedSequence([self.seed, self.num_timesteps]).generate_state(1)[0]))
        self.model._last_obs = self.model.env.reset()  # type: ignore[assignment]
        if normalizer is not None:  # replay buffers store what is not normalized
            self.model._last_original_obs = normalizer.get_original_obs()
        self.model._last_episode_starts = np.ones(self.model.n_envs, dtype=bool)
        if isinstance(self.model, SAC) and self.model.use_sde:
            self.model.actor.reset_noise()
