"""What the runs of a method have identified, network by network."""

from __future__ import annotations

from sb3_nbsp.benchmark.figures.no_data import NoDataError
from sb3_nbsp.benchmark.neurons_file import RunNeurons, read_neurons
from sb3_nbsp.benchmark.results import Results


def identified(results: Results) -> dict[str, dict[int, RunNeurons]]:
    """
    :param results: a comparison's results
    :return: for each method with a readable ``neurons.json`` what each seed identified
    :raises NoDataError: if there is none
    """
    found: dict[str, dict[int, RunNeurons]] = {}
    for run in results.runs:
        try:
            neurons = read_neurons(run.cell.folder)
        except (ValueError, OSError):
            continue  # named in the report
        if neurons is not None and any(phase.networks for phase in neurons.phases):
            found.setdefault(run.cell.method, {})[run.cell.seed] = neurons
    if not found:
        raise NoDataError("no run has identified skill neurons (neurons.json)")
    return found


def networks_of(found: dict[str, dict[int, RunNeurons]]) -> list[str]:
    """
    :param found: what :func:`identified` returns
    :return: names of all networks in which skill neurons were identified
    """
    runs = [run for seeds in found.values() for run in seeds.values()]
    names = (name for run in runs for name in run.layers)
    return [name for name in dict.fromkeys(names) if any(run.of_tasks(name) for run in runs)]


def layers_of(runs: dict[int, RunNeurons], network: str) -> dict[str, int]:
    """
    :param runs: runs of one method
    :param network: name of a network
    :return: its layers with skill neurons and their widths; none if the method identifies none in this network
    """
    return next((run.layers[network] for run in runs.values() if run.of_tasks(network)), {})


def short_name(layer: str) -> str:
    """
    :param layer: full name of a layer, such as "actor.latent_pi.0"
    :return: the last two parts of its name, such as "latent_pi.0"
    """
    return ".".join(layer.split(".")[-2:])
