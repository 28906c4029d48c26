"""Write down the skill neurons of a run, for plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_nbsp.algorithms import ContinualSAC
from sb3_nbsp.files import atomic_write, read_json_object
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.neurons.layers import split_by_layer


class NeuronFile(BaseCallback):
    """
    At the end of every phase, writes which neurons are skill neurons into a small file, for plots.

    :param path: the file; continued if it is there
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._written = -1

    def _on_training_start(self) -> None:
        self._written = self.model.phase.index - 1 if isinstance(self.model, ContinualSAC) else -1

    def _on_rollout_start(self) -> None:
        if isinstance(self.model, ContinualSAC) and self.model.phase.index - 1 > self._written:
            self._write(self.model.phase.index - 1)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if isinstance(self.model, ContinualSAC) and self.training_env.get_attr("sequence_over")[0]:
            self._write(self.model.phase.index)

    def _write(self, phase: int) -> None:
        """Enter what is known after a phase, in place of what is there for it and later phases."""
        assert isinstance(self.model, ContinualSAC)
        self._written = phase
        masking = next((each for each in self.model.hooks if isinstance(each, GradientMasking)), None)
        if masking is None:
            return
        entries = read_json_object(self.path)["phases"] if self.path.exists() else []
        entries = [entry for entry in entries if entry["phase"] < phase]
        found = [task for task, identified in masking.identified_in.items() if identified == phase]
        entries += [{"phase": phase, "task": task, "networks": _skill_neurons(masking, task)} for task in found]
        sizes = {each.name: [(layer.name, layer.n_neurons) for layer in each.layers] for each in masking.networks}
        atomic_write(self.path, json.dumps({"networks": sizes, "phases": entries}) + "\n")


def _skill_neurons(masking: GradientMasking, task: str) -> dict[str, dict[str, Any]]:
    """By network: its skill neurons by layer, how many neurons are held back by now, and the best ones' histograms."""
    networks = {}
    for network in masking.networks:
        parts = split_by_layer(masking.skill_neurons[task][network.name], network.layers)
        places = [(layer.name, neuron) for layer in network.layers for neuron in range(layer.n_neurons)]
        histograms = []
        for histogram in masking.histograms[task][network.name]:
            layer_name, neuron = places[histogram["neuron"]]
            histograms.append({**histogram, "layer": layer_name, "neuron": neuron})
        networks[network.name] = {
            "skill_neurons": {name: th.nonzero(part).flatten().tolist() for name, part in parts.items()},
            "masked": {layer.name: int((masking.masks[layer.name] < 1).sum()) for layer in network.layers},
            "histograms": histograms,
        }
    return networks
