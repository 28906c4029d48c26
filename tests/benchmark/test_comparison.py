"""Names of methods, sequences and presets, and what a comparison consists of."""

import argparse
import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sb3_nbsp.benchmark.comparison import Comparison, find_env, sequence_names
from sb3_nbsp.benchmark.frames import load_results
from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS, find_methods
from sb3_nbsp.benchmark.settings import Settings
from sb3_nbsp.tasks.registration import sequences
from sb3_nbsp.zoo.algos import algorithm, hyperparams_file

ROOT = Path(__file__).parents[2]


def made(**changes: Any) -> Comparison:
    return Comparison(**{"envs": ["CoffeeButton-HandlePress"], "methods": ["nbsp_sac"], "seeds": [1], **changes})


def test_every_method_is_one_option_away_from_its_algorithm():
    for method in METHODS.values():
        assert hyperparams_file(method.algo) is not None
        assert len(method.options) <= (2 if method.name.endswith(("_training", "_fresh")) else 1)
        small = {"buffer_size": 10} if "sac" in method.algo else {}
        env_id = "CartPole-v1" if "discrete" in method.algo else "Pendulum-v1"
        model = algorithm(method.algo)("MlpPolicy", env_id, **small, **method.options)
        assert all(getattr(model, name) == value for name, value in method.options.items())


def test_every_method_has_a_title_of_its_own():
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    assert all(method.title != method.name and "_" not in method.title for method in METHODS.values())


def test_groups_stand_for_their_methods_and_none_is_named_twice():
    assert [method.name for method in find_methods(["table2"])] == ABLATIONS["table2"]
    assert [method.name for method in find_methods(["nbsp_sac", "table4", "nbsp_actor"])] == [
        "nbsp_sac",
        "nbsp_actor",
        "nbsp_critic",
    ]
    assert {name for names in ABLATIONS.values() for name in names} <= set(METHODS)


def test_an_unknown_method_is_an_error_that_lists_all():
    with pytest.raises(ValueError, match="no method 'nbsp_sca'; did you mean nbsp_sac") as error:
        find_methods(["nbsp_sca"])
    assert all(name in str(error.value) for name in [*METHODS, *ABLATIONS])


def test_every_registered_sequence_has_a_name_in_its_preset():
    found = {find_env(name, preset) for preset in ("laptop", "paper") for name in sequence_names(preset)}
    assert found == set(sequences())


def test_an_id_is_an_environment_too():
    assert find_env("Hopper-v5", "laptop") == "Hopper-v5"
    assert find_env("MW-CW10-v0", "laptop") == "MW-CW10-v0"


@pytest.mark.parametrize(
    "name, preset, error",
    [
        (
            "CoffeeButton",
            "laptop",
            "no environment 'CoffeeButton', .* did you mean CoffeeButton-HandlePress",
        ),
        (
            "CoffeeButton-HandlePress",
            "paper",
            "no environment 'CoffeeButton-HandlePress', and no sequence of this name for the",
        ),
        ("CW10", "phone", "no preset 'phone'; presets: laptop, paper"),
    ],
)
def test_an_unknown_sequence_or_preset_is_an_error(name, preset, error):
    with pytest.raises(ValueError, match=error) as raised:
        find_env(name, preset)
    if preset != "phone":
        assert all(known in str(raised.value) for known in sequence_names(preset))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"seeds": [1, -1]}, "seeds must not be negative"),
        ({"n_eval_episodes": 0}, "n_eval_episodes must be at least 1, not 0"),
        ({"save_freq": 0}, "save_freq must be at least 1, not 0"),
        ({"methods": ["sax"]}, "no method 'sax'"),
        ({"n_timesteps": 0}, "n_timesteps must be at least 1, not 0"),
        ({"n_timesteps": 5}, "n_timesteps: the steps of a sequence follow from steps_per_task and cycles"),
        ({"hyperparams": {"n_timesteps": 5}}, "n_timesteps: the steps of a sequence follow from steps_per_task and cycles"),
        ({"methods": ["p3o"]}, "p3o is on-policy: .* of a task sequence"),
        ({"env_kwargs": {"tasks": {"a", "b"}}}, "Options must be numbers, strings, lists or dictionaries"),
    ],
)
def test_a_wrong_comparison_is_an_error(changes, error):
    with pytest.raises(ValueError, match=error):
        made(**changes)


def test_the_runs_of_a_comparison(tmp_path):
    runs = made(methods=["continual_sac", "nbsp_hard_masks"], seeds=[1, 2, 1]).runs(tmp_path)
    assert [(run.method, run.seed) for run in runs] == [
        ("continual_sac", 1),
        ("nbsp_hard_masks", 1),
        ("continual_sac", 2),
        ("nbsp_hard_masks", 2),
    ]
    assert runs[3].path == tmp_path / "nbsp_hard_masks" / "seed_2" and runs[3].name == "NBSP, hard masks, seed 2"


def test_the_runs_on_several_environments(tmp_path):
    several = made(envs=["CoffeeButton-HandlePress", "Hopper-v5"], n_timesteps=300, hyperparams={"gamma": 0.9})
    sequence, hopper = several.runs(tmp_path)
    assert sequence.path == tmp_path / "MW-CoffeeButton-HandlePress-laptop-v0" / "nbsp_sac" / "seed_1"
    assert hopper.path == tmp_path / "Hopper-v5" / "nbsp_sac" / "seed_1" and hopper.name == "Hopper-v5, NBSP, seed 1"
    assert several.settings(hopper).hyperparams["n_timesteps"] == 300
    assert (several.settings(hopper).save_freq, several.settings(sequence).save_freq) == (50_000, 5_000)
    assert several.settings(sequence).hyperparams["n_timesteps"] > 300


def test_hyperparams_go_to_the_methods_that_have_them(tmp_path):
    both = made(methods=["continual_sac", "nbsp_sac"], hyperparams={"mask_alpha": 0.5})
    vanilla, nbsp = both.runs(tmp_path)
    assert "mask_alpha" not in both.settings(vanilla).hyperparams and both.settings(nbsp).hyperparams["mask_alpha"] == 0.5


@pytest.mark.parametrize(
    "methods, error",
    [
        (["sac"], "sac has no hyperparameter 'mask_typ'"),
        (["sac", "nbsp_sac"], "None of the methods .* did you mean mask_type"),
    ],
)
def test_a_hyperparam_that_no_method_has_is_an_error_but_can_be_read(methods, error, tmp_path):
    comparison = made(methods=methods, hyperparams={"mask_typ": "hard"})
    with pytest.raises(ValueError, match=error):
        comparison.check_hyperparams()
    comparison.save(tmp_path)
    assert Comparison.load(tmp_path) == comparison, "an option of an earlier version"


def test_a_methods_option_goes_before_that_of_all(tmp_path):
    comparison = made(methods=["nbsp_hard_masks"], hyperparams={"mask_type": "soft", "gamma": 0.9})
    settings = comparison.settings(comparison.runs(tmp_path)[0])
    assert (settings.hyperparams["mask_type"], settings.hyperparams["gamma"]) == ("hard", 0.9)
    assert (settings.algo, settings.env_id) == ("nbsp_sac", "MW-CoffeeButton-HandlePress-laptop-v0")
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings


def test_a_comparison_grows_by_methods_and_seeds(tmp_path):
    made().save(tmp_path)
    (tmp_path / "nbsp_sac" / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)
    made(methods=["sac"], seeds=[2]).save(tmp_path)
    together = Comparison.load(tmp_path)
    assert (together.methods, together.seeds) == (["nbsp_sac", "sac"], [1, 2])


def test_options_are_as_they_come_out_of_the_file(tmp_path):
    comparison = made(hyperparams={"train_freq": (1, "episode")})
    assert comparison.hyperparams == {"train_freq": [1, "episode"]}
    comparison.save(tmp_path)
    comparison.save(tmp_path)
    assert Comparison.load(tmp_path) == comparison


def test_everything_may_change_until_a_run_has_got_somewhere(tmp_path):
    made(hyperparams={"tau": 0.9}).save(tmp_path)
    made(hyperparams={"gamma": 0.9}).save(tmp_path)
    assert Comparison.load(tmp_path).hyperparams == {"gamma": 0.9}


def test_a_folder_is_of_one_comparison_only(tmp_path):
    made().save(tmp_path)
    (tmp_path / "nbsp_sac" / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)
    before = (tmp_path / "benchmark.json").read_text()
    with pytest.raises(ValueError, match=r"other settings(?s:.*)\n  hyperparams: \{\} there, \{'gamma': 0.9\} now$"):
        made(hyperparams={"gamma": 0.9}).save(tmp_path)
    assert (tmp_path / "benchmark.json").read_text() == before


def test_a_comparison_whose_first_run_is_being_computed_only_grows(tmp_path):
    made().save(tmp_path)
    folder = made().runs(tmp_path)[0].folder
    folder.path.mkdir(parents=True)
    (folder.path / "config.json").write_text("{}")
    with folder.lock():
        made(methods=["continual_sac"]).save(tmp_path)
        with pytest.raises(ValueError, match="other settings"):
            made(hyperparams={"gamma": 0.9}).save(tmp_path)
    assert Comparison.load(tmp_path).methods == ["nbsp_sac", "continual_sac"]


@pytest.mark.parametrize("text", [None, "{", '{"colour": "red"}', "[]"])
def test_a_folder_without_a_whole_comparison(text, tmp_path):
    if text is not None:
        (tmp_path / "benchmark.json").write_text(text)
    with pytest.raises(ValueError, match="holds no comparison" if text is None else "is damaged"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("envs", "HalfCheetah-Directions-v0", "a list of words"),
        ("envs", [], "a list of words"),
        ("methods", [], "a list of words"),
        ("seeds", "1", "a list of whole numbers"),
        ("seeds", [1, "a"], "a list of whole numbers"),
        ("n_eval_episodes", "20", "a whole number"),
        ("eval_freq", None, "a whole number"),
        ("env_kwargs", [], "a dictionary"),
    ],
)
def test_a_field_of_another_kind_is_named(name, value, expected, tmp_path):
    made().save(tmp_path)
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {name} must be {expected}, not {value!r}')}$"):
        Comparison.load(tmp_path)


def test_what_will_not_act_is_told_where_the_comparison_is_started(recwarn):
    on_hopper = made(envs=["Hopper-v5"], methods=["ewc_sac", "sbp_sac", "sac"], n_timesteps=300)
    for run in on_hopper.runs("folder"):
        on_hopper.settings(run).check()
    said = "\n".join(str(each.message) for each in recwarn)
    assert "EWC of this EWCSAC will not act" in said and "EWCSAC learns nothing in this call of learn()" in said
    assert "the next reset is due at step 10000" in said
    recwarn.clear()
    for run in made(methods=["ewc_sac", "cycle_sac"]).runs("folder"):
        made(methods=[run.method]).settings(run).check()
    assert [each for each in recwarn if "SAC" in str(each.message)] == []


@pytest.mark.parametrize(
    "change, error", [(("nbsp_sac", "gone_sac"), "no method 'gone_sac'"), (("1", "-1"), "must not be negative")]
)
def test_an_error_in_a_saved_comparison_names_the_file(change, error, tmp_path):
    made(seeds=[1]).save(tmp_path)
    path = tmp_path / "benchmark.json"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{error}"):
        Comparison.load(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": ["sac", "nbsp_sac"], "seeds": [3, 4], "env_kwargs": {"horizon": 50}, "hyperparams": {"ent_coef": "auto"}},
        {"envs": ["Hopper-v5", "CW10"], "preset": "paper", "n_timesteps": 300, "save_freq": 10, "n_eval_episodes": 3},
    ],
)
def test_the_command_makes_the_same_comparison(changes, tmp_path):
    comparison = made(**changes)
    words = shlex.split(comparison.command(tmp_path))
    assert words[:4] == ["python", "-m", "sb3_nbsp.benchmark", "run"] and words[-2:] == ["--out", str(tmp_path)]
    parser = argparse.ArgumentParser()
    Comparison.add_arguments(parser)
    assert Comparison.from_arguments(parser.parse_args(words[4:-2])) == comparison
    other_name = ["--sequence" if word == "--envs" else word for word in words[4:-2]]
    assert Comparison.from_arguments(parser.parse_args(other_name)) == comparison


def test_a_setting_that_an_earlier_version_did_not_have_was_the_default():
    settings = Settings("sac", "Pendulum-v1", 1, {}, {})
    earlier = {name: value for name, value in asdict(settings).items() if name != "eval_policy"}
    assert settings.differences(earlier) == []
    assert settings.differences({**earlier, "seed": 2}) == ["seed"]


def test_the_command_says_what_differs_from_the_defaults():
    comparison = Comparison(["Hopper-v5"], ["p3o", "ppo"], [1, 2], n_timesteps=300, hyperparams={"reset_rate": 0.05})
    assert comparison.command("out") == (
        "python -m sb3_nbsp.benchmark run --envs Hopper-v5 --methods p3o ppo --seeds 1 2 --n-timesteps 300 "
        "--hyperparams reset_rate:0.05 --out out"
    )


@pytest.mark.parametrize("folder, n_runs", [("table2", 18), ("phase_start", 7), ("phase_start_own", 3), ("p3o", 18)])
def test_comparisons_of_version_0_1_are_read(folder, n_runs):
    path = ROOT / "docs" / "results" / folder
    assert sum(run.folder.is_done for run in Comparison.load(path).runs(path)) == n_runs
    results = load_results(path)
    assert len(results.runs) == n_runs and results.damaged == []
    assert results.comparison.save_freq is None, "the default of then is that of now"


def test_a_single_environment_of_version_0_1_has_a_folder_of_its_own(tmp_path):
    content = {"made_by": "plasticity", "env_ids": ["Hopper-v5"], "methods": ["p3o"], "seeds": [1], "n_timesteps": 300}
    (tmp_path / "benchmark.json").write_text(json.dumps(content))
    (tmp_path / "Hopper-v5").mkdir()
    (run,) = Comparison.load(tmp_path).runs(tmp_path)
    assert run.path == tmp_path / "Hopper-v5" / "p3o" / "seed_1"
