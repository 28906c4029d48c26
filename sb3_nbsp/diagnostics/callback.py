"""Record during training how plastic the actor is."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.diagnostics.history import PICTURE, add_record, open_history
from sb3_nbsp.diagnostics.measure import diagnostics, spread
from sb3_nbsp.interventions.base import Intervention
from sb3_nbsp.interventions.inner_distillation import InnerDistillation
from sb3_nbsp.interventions.networks import actor_of
from sb3_nbsp.interventions.neuron_reset import NeuronReset
from sb3_nbsp.interventions.observations import has_observations, training_observations
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.needs_plots import needs_plots


class PlasticityCallback(BaseCallback):
    """
    Every ``record_freq`` environment steps, measure how plastic the actor is (:func:`~sb3_nbsp.diagnostics.diagnostics`),
    on states of the last rollout (PPO; as far as it went, if a callback stopped it) or drawn from the replay buffer (SAC);
    and once more when training ends. Training is not affected: with and without the callback, the same seed gives the
    same parameters, bit for bit.

    The measures are written to the logger as ``plasticity/<name>`` and to the rows of ``plasticity.csv``, together with
    the mean return of the last episodes and, for agents with interventions, the resets of neurons (total, per neuron,
    share that was ever reset: P3O paper, table 4) and the epochs of distillation so far. ``gradient_covariance.csv``
    contains the matrix of the last record. At the end of training, everything is drawn in ``plasticity.png``.

    The first row, of step 0, is the policy at the start of training, measured just before its first update. Even a new
    network has dormant neurons, so compare the other rows with it (the dashed line in the figure).

    A measurement is made at the end of a rollout in which a multiple of ``record_freq`` has been passed, so with PPO at most
    every ``n_steps * n_envs`` steps. It shows the policy that collected the rollout, before it is trained on it.

    Inside another callback (``EveryNTimesteps``, ``EvalCallback(callback_after_eval=...)`` or ``callback_on_new_best``) a
    measurement is made at the other's events, if it is due. The figure is then drawn each time, because such a callback is
    not notified of the end of training.

    :param record_freq: environment steps between records
    :param folder: folder for the files. A call of ``learn()`` that continues the step count continues the files; a call that
        starts at 0 starts them anew. None writes nothing
    :param n_states: number of states to measure on
    :param dormant_threshold: τ of the dormant ratio
    :param n_gradient_states: number of states to take gradients in
    :param plot: draw ``plasticity.png``, which needs matplotlib (the extra ``plots``)
    :param verbose: 1 prints every record
    :raises ValueError: if an option is out of its range, or ``plot`` is True without matplotlib
    """

    def __init__(
        self,
        record_freq: int = 10_000,
        folder: str | os.PathLike[str] | None = None,
        n_states: int = 2048,
        dormant_threshold: float = 0.1,
        n_gradient_states: int = 64,
        plot: bool = True,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        record_freq = whole("record_freq", record_freq, 1)
        n_states = whole("n_states", n_states, 1)
        check_range("dormant_threshold", dormant_threshold, 0)
        n_gradient_states = whole("n_gradient_states", n_gradient_states, 1)
        check_option("plot", plot, (True, False))
        self.record_freq = record_freq
        self.folder = None if folder is None else Path(folder)
        self.n_states = n_states
        self.dormant_threshold = dormant_threshold
        self.n_gradient_states = n_gradient_states
        self.plot = plot and folder is not None
        if self.plot:
            # Now rather than after hours of training
            with needs_plots("PlasticityCallback(plot=True)"):
                import_module("matplotlib")

    def _init_callback(self) -> None:
        actor_of(self.model)  # complain of an unfit policy before training
        self._recorded = self.model.num_timesteps
        self._is_open = False
        self._hears_of_rollouts = False  # not inside another callback, which hands on its events only

    def _on_training_start(self) -> None:
        self._recorded = self.num_timesteps
        self._start_is_due = self.num_timesteps == 0 or getattr(self.model, "_n_updates", 1) == 0
        self._open()

    def _open(self) -> None:
        if self.folder is not None and not self._is_open:
            open_history(self.folder, self._recorded)
        self._is_open = True

    def _on_rollout_start(self) -> None:
        self._hears_of_rollouts = True

    def _on_step(self) -> bool:
        if not self._hears_of_rollouts and self._is_due():
            self._record(self.num_timesteps)
            self._draw()
        return True

    def _on_rollout_end(self) -> None:
        """Only now are the transitions of the rollout stored."""
        if self._start_is_due and _is_about_to_learn(self.model) and self._record(step=0):
            self._start_is_due = False
        if self._is_due():
            self._record(self.num_timesteps)

    def _is_due(self) -> bool:
        return self.num_timesteps // self.record_freq > self._recorded // self.record_freq

    def _on_training_end(self) -> None:
        if self.num_timesteps > self._recorded:
            self._record(self.num_timesteps)
        self._draw()

    def _draw(self) -> None:
        if self.plot and self.folder is not None:
            from sb3_nbsp.diagnostics.figure import plot_plasticity

            plot_plasticity({type(self.model).__name__: self.folder}, self.folder / PICTURE)

    def _record(self, step: int) -> bool:
        """Whether it could be measured: not when the buffer is empty, as when a phase has just begun."""
        if not has_observations(self.model):
            return False
        self._open()
        states = training_observations(self.model, self.n_states, own_seed(self.model, step, purpose=400))
        found = diagnostics(
            self.model,
            spread(states, self.n_states),
            self.dormant_threshold,
            self.n_gradient_states,
            seed=own_seed(self.model, step, purpose=401),
        )
        self._recorded = max(self._recorded, step)
        row = {**found.scalars(), "ep_rew_mean": _mean_return(self.model), **_interventions_so_far(self.model)}
        self._log(step, row)
        if self.folder is not None:
            add_record(self.folder, step, row, found.gradient_covariance.numpy())
        return True

    def _log(self, step: int, row: dict[str, float | None]) -> None:
        if step < self.num_timesteps and self.logger.name_to_value:
            self.logger.dump(self.num_timesteps)  # what others have recorded is not of the start
        present = {name: value for name, value in row.items() if value is not None}
        for name, value in present.items():
            self.logger.record(f"plasticity/{name}", value)
        # Otherwise records between two of the agent's own dumps would be lost
        self.logger.dump(step)
        if self.verbose:
            print(f"Step {step}: " + ", ".join(f"{name} {value:.4g}" for name, value in present.items()))


def _is_about_to_learn(model: BaseAlgorithm) -> bool:
    """At the end of a rollout: whether updates follow."""
    return not isinstance(model, OffPolicyAlgorithm) or model.num_timesteps > model.learning_starts


def _mean_return(model: BaseAlgorithm) -> float | None:
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    return float(np.mean(returns)) if returns else None


def _interventions_so_far(model: BaseAlgorithm) -> dict[str, float | None]:
    """Resets (P3O paper, table 4) and distillation; None for what the agent does not do."""
    interventions: list[Intervention] = list(getattr(model, "all_interventions", ()))
    epochs = [each.epochs for each in interventions if isinstance(each, InnerDistillation)]
    counts: dict[str, th.Tensor] = {}
    for each in interventions:
        if isinstance(each, NeuronReset):
            for layer, resets in each.reset_counts.items():
                counts[layer] = counts[layer] + resets if layer in counts else resets
    of_neurons = th.cat(list(counts.values())).double() if counts else None
    return {
        "resets": None if of_neurons is None else of_neurons.sum().item(),
        "resets_per_neuron": None if of_neurons is None else of_neurons.mean().item(),
        "share_ever_reset": None if of_neurons is None else (of_neurons > 0).double().mean().item(),
        "distillation_epochs": float(sum(epochs)) if epochs else None,
    }
