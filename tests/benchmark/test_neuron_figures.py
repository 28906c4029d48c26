"""The figures of skill neurons show the numbers of neurons.json."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_comparison import TASKS, make_histogram, write_comparison
from matplotlib.colors import to_rgba
from matplotlib.patches import StepPatch

from sb3_nbsp.benchmark.comparison import Comparison
from sb3_nbsp.benchmark.figures import draw_figures
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.neuron_figures import histograms_figure, overlap_figure, overlaps, skill_neurons_figure
from sb3_nbsp.benchmark.style import NoDataError, task_colors

pytestmark = pytest.mark.usefixtures("style")


def counts_of(folder, network, layer, task):
    """Skill neurons of the task's last phase, for each seed."""
    counts = []
    for path in sorted(folder.glob("nbsp_sac/*/neurons.json")):
        phases = [phase for phase in json.loads(path.read_text())["phases"] if phase["task"] == task]
        counts.append(len(phases[-1]["networks"][network]["skill_neurons"][layer]))
    return counts


def test_skill_neurons_are_counted_by_layer_and_task(folder):
    figure = skill_neurons_figure(load_results(folder))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["NBSP: actor", "NBSP: critic 1", "NBSP: critic 2"]
    panel = figure.axes[0]
    masked, *by_task = panel.containers
    layers = ("actor.latent_pi.0", "actor.latent_pi.2")
    assert masked_at_the_end(folder, layers) == pytest.approx([bar.get_height() for bar in masked])
    for task, bars in zip(TASKS, by_task, strict=True):
        expected = [np.mean(counts_of(folder, "actor", layer, task)) for layer in layers]
        assert [bar.get_height() for bar in bars] == pytest.approx(expected)
        assert {bar.get_facecolor() for bar in bars} == {to_rgba(task_colors(TASKS)[task])}  # that of the legend
    assert [label.get_text() for label in panel.get_xticklabels()] == ["layer 1\nof 256", "layer 2\nof 256"]


def masked_at_the_end(folder, layers):
    contents = [json.loads(path.read_text()) for path in folder.glob("nbsp_sac/*/neurons.json")]
    return [np.mean([each["phases"][-1]["networks"]["actor"]["masked"][layer] for each in contents]) for layer in layers]


def write_neurons(folder: Path, skill: list[list[int]], histograms: list[dict] | None = None) -> None:
    """One layer of 10 neurons; its skill neurons after each phase, of the tasks in turns."""
    networks = [
        {"actor": {"skill_neurons": {"actor.0": neurons}, "masked": {"actor.0": 5}, "histograms": histograms or []}}
        for neurons in skill
    ]
    phases = [{"phase": i, "task": TASKS[i % 2], "networks": network} for i, network in enumerate(networks)]
    content = {"networks": {"actor": [["actor.0", 10]]}, "phases": phases}
    (folder / "neurons.json").write_text(json.dumps(content))


def test_overlap_of_two_tasks(folder):
    def counted(*of_seeds: list[list[int]]) -> list[float]:
        for seed in (1, 2, 3):
            (folder / "nbsp_sac" / f"seed_{seed}" / "neurons.json").unlink(missing_ok=True)
        for seed, skill in enumerate(of_seeds, 1):
            write_neurons(folder / "nbsp_sac" / f"seed_{seed}", skill)
        frame = overlaps(load_results(folder))
        assert len(frame) == 1
        return frame[["shared", "only the first", "only the second", "by chance"]].iloc[0].tolist()

    # Of the first task's last phase: 0, 1, 2
    assert counted([[9], [1, 2, 3, 4], [0, 1, 2]]) == pytest.approx([2, 1, 2, 3 * 4 / 10])
    assert counted([[9], [1, 2, 3, 4], [0, 1, 2]], [[5], [6]]) == pytest.approx([1, 1, 1.5, 0.65])
    with pytest.raises(NoDataError, match="skill neurons of two tasks"):
        counted([[5]])


def test_overlap_figure_draws_these_numbers(folder):
    for seed in (1, 2, 3):
        write_neurons(folder / "nbsp_sac" / f"seed_{seed}", [[9], [1, 2, 3, 4], [0, 1, 2]])
    (panel,) = overlap_figure(load_results(folder)).axes
    assert [(bar.get_label(), bar.patches[0].get_width()) for bar in panel.containers] == [
        *(("shared", 2), ("only the first", 1), ("only the second", 2))
    ]
    assert {"2", "1", "coffee-button / handle-press"} <= {text.get_text() for text in panel.texts}
    assert panel.lines[0].get_xdata()[0] == pytest.approx(1.2)


@pytest.mark.parametrize(
    "tasks, pairs",
    [
        (["a", "b", "c"], ["a / b", "a / c", "b / c"]),
        (["a", "b", "c", "d"], ["a / b", "b / c", "c / d"]),
    ],
)
def test_pairs_of_tasks(tasks, pairs, tmp_path):
    comparison = Comparison(["CoffeeButton-HandlePress"], ["nbsp_sac"], [1], env_kwargs={"tasks": tasks, "cycles": 1})
    write_comparison(tmp_path, comparison, tasks, cycles=1)
    assert list(dict.fromkeys(overlaps(load_results(tmp_path)).pair)) == pairs


def test_histograms_are_shares_best_score_first(folder):
    random = np.random.default_rng(0)
    histograms = [make_histogram("actor.0", neuron, random) for neuron in range(6)]
    for number, histogram in enumerate(histograms):
        histogram["score"] = 0.6 + 0.05 * ((number + 3) % 6)
    write_neurons(folder / "nbsp_sac" / "seed_1", [[0], [1]], histograms)
    figure = histograms_figure(load_results(folder))
    assert figure.axes[0].texts[0].get_text() == "NBSP: actor after coffee-button, seed 1"
    assert [panel.get_title(loc="left").strip() for panel in figure.axes] == [
        f"layer 1, neuron {neuron}, score {score}" for neuron, score in ((2, "0.85"), (1, "0.80"), (0, "0.75"), (5, "0.70"))
    ]
    success, _, failure, _ = (patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch))
    np.testing.assert_allclose(success.get_data().values, np.array(histograms[2]["success"]) / sum(histograms[2]["success"]))
    np.testing.assert_allclose(failure.get_data().values, np.array(histograms[2]["failure"]) / sum(histograms[2]["failure"]))
    np.testing.assert_allclose(success.get_data().edges, histograms[2]["edges"])


def test_without_neurons_the_other_figures_are_drawn(folder):
    for path in folder.glob("*/*/neurons.json"):
        path.unlink()
    results = load_results(folder)
    drawn, skipped = draw_figures(results)
    assert [each.name for each in drawn] == ["metrics", "training", "success_matrix", "forgetting"]
    assert len(skipped) == 3 and all("(neurons.json)" in sentence for sentence in skipped)
    assert results.damaged == [], "a missing file is no damaged one"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: "{", "is damaged: Expecting"),
        (lambda content: content.pop("phases") and json.dumps(content), "is damaged: 'phases' is missing"),
        (lambda content: "[1]", "is damaged: it holds [1]"),
        (lambda content: json.dumps({**content, "networks": {"actor": [["actor.0", 10]]}}), "is damaged: 'actor.latent_pi.0'"),
        (lambda content: json.dumps(content).replace("[0, ", "[256, ", 1), "actor.latent_pi.0 has 256 neurons, not 257"),
        (lambda content: json.dumps(content).replace('"edges": [0.0, ', '"edges": [', 1), "has 20 edges for 20 and 20 bins"),
        (lambda content: json.dumps(content).replace('"edges": [0.0, ', '"edges": [NaN, ', 1), "no finite number"),
        (
            lambda content: json.dumps(content).replace('"masked": {"', '"masked": {"no layer": 3, "', 1),
            "'no layer' is missing",
        ),
        (lambda content: json.dumps(content).replace('"layer": "actor', '"layer": "', 1), "is missing"),
    ],
)
def test_damaged_neurons_are_named_and_left_out(folder, damage, reason):
    path = folder / "nbsp_sac" / "seed_2" / "neurons.json"
    content = json.loads(path.read_text())
    content["phases"][0]["networks"]["actor"]["skill_neurons"]["actor.latent_pi.0"] = [0, 5]
    path.write_text(damage(content))
    results = load_results(folder)
    (sentence,) = results.damaged
    assert sentence.startswith(f"NBSP, seed 2: {path} is damaged") and reason in sentence
    _, first, _ = skill_neurons_figure(results).axes[0].containers
    path.unlink()
    expected = np.mean(counts_of(folder, "actor", "actor.latent_pi.0", TASKS[0]))
    assert first[0].get_height() == pytest.approx(expected)
