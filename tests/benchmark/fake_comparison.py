"""Comparisons with made-up numbers, in the files that real ones have."""

import json
from pathlib import Path

import numpy as np

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.methods import METHODS
from sb3_nbsp.tasks import SuccessMatrix

TASKS = ["coffee-button", "handle-press"]
COMPARED = ["continual_sac", "nbsp_replay_only", "nbsp_sac"]
TITLES = ["vanilla SAC", "replay only", "NBSP"]
NETWORKS = {
    "actor": [["actor.latent_pi.0", 256], ["actor.latent_pi.2", 256]],
    "qf0": [["critic.qf0.0", 256], ["critic.qf0.2", 256]],
    "qf1": [["critic.qf1.0", 256], ["critic.qf1.2", 256]],
}


def write_comparison(folder: Path, comparison: Comparison, tasks: list[str], cycles: int = 2, episodes: int = 60) -> None:
    """All runs of a comparison; methods called nbsp forget less, and have neurons.json."""
    comparison.save(folder)
    for run in comparison.runs(folder):
        random = np.random.default_rng([run.seed, comparison.methods.index(run.method)])
        write_run(run.path, run.method, tasks * cycles, random, episodes)
        config = {
            "algo": METHODS[run.method].algo,
            "env_id": run.env_id,
            "seed": run.seed,
            "hyperparams": {"policy": "MlpPolicy", "batch_size": 256, **METHODS[run.method].options},
            "versions": {"sb3_nbsp": "0.1.0", "torch": "2.13.0"},
            "machine": {"processor": "a processor", "cores": 2, "memory_gib": 24, "system": "Linux", "device": "cpu"},
        }
        (run.path / "config.json").write_text(json.dumps(config))


def write_run(folder: Path, method: str, phases: list[str], random: np.random.Generator, episodes: int) -> None:
    """One run that is done."""
    folder.mkdir(parents=True)
    tasks = list(dict.fromkeys(phases))
    matrix = SuccessMatrix(tasks)
    keeps = 0.8 if "nbsp" in method else 0.2
    lines, step, success = ["step,phase,task,success,return,length"], 0, np.zeros(len(tasks))
    for phase, task in enumerate(phases):
        n_episodes = int(random.integers(episodes // 2, episodes))
        for episode in range(n_episodes):
            step += 200
            succeeds = random.random() < 1 / (1 + np.exp(-10 * (episode / n_episodes - 0.6)))
            lines.append(f"{step},{phase},{task},{succeeds},{random.normal():.2f},200")
        success = success * np.clip(random.normal(keeps, 0.2, len(tasks)), 0, 1)
        success[tasks.index(task)] = random.uniform(0.8, 1)
        matrix.set_row(phase, task, (np.round(success * 20) / 20).tolist())
    (folder / "training.csv").write_text("\n".join(lines) + "\n")
    matrix.save(folder / "success_matrix.csv")
    (folder / "result.json").write_text(json.dumps({**matrix.metrics(), "steps": step}))
    if "nbsp" in method and method != "nbsp_replay_only":
        (folder / "neurons.json").write_text(json.dumps(make_neurons(phases, random)))


def make_neurons(phases: list[str], random: np.random.Generator) -> dict:
    """The content of a neurons.json: some neurons in common, a histogram of each of the first four in the first layer."""
    content: dict = {"networks": NETWORKS, "phases": []}
    masked: dict[str, set[int]] = {}
    for phase, task in enumerate(phases):
        networks = {}
        for network, layers in NETWORKS.items():
            skill = {}
            for place, (layer, width) in enumerate(layers):
                chance = np.linspace(0.6, 0, width) * (0.9 if place == 0 else 0.5)
                skill[layer] = np.flatnonzero(random.random(width) < chance).tolist()
                masked.setdefault(layer, set()).update(skill[layer])
            histograms = [make_histogram(layers[0][0], neuron, random) for neuron in skill[layers[0][0]][:4]]
            counts = {layer: len(masked[layer]) for layer, _ in layers}
            networks[network] = {"skill_neurons": skill, "masked": counts, "histograms": histograms}
        content["phases"].append({"phase": phase, "task": task, "networks": networks})
    return content


def make_histogram(layer: str, neuron: int, random: np.random.Generator) -> dict:
    """Activations that are higher at steps with success."""
    success, failure = np.maximum(random.normal(1.2, 0.5, 3000), 0), np.maximum(random.normal(0.3, 0.5, 7000), 0)
    edges = np.linspace(0, 3, 21)
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in (("success", success), ("failure", failure))}
    return {"layer": layer, "neuron": neuron, "score": float(random.uniform(0.7, 0.85)), "edges": edges.tolist(), **counts}
