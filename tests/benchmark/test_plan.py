"""Names of methods, sequences and presets, and what a comparison consists of."""

import json

import pytest

from sb3_nbsp.benchmark.methods import ABLATIONS, METHODS, find_methods
from sb3_nbsp.benchmark.plan import Plan, find_sequence, sequence_names
from sb3_nbsp.tasks.registration import sequences
from sb3_nbsp.zoo.algos import algorithm, hyperparams_file


def plan(**changes) -> Plan:
    return Plan(
        **{"sequence": "CoffeeButton-HandlePress", "preset": "laptop", "methods": ["nbsp_sac"], "seeds": [1], **changes}
    )


def test_every_method_is_one_option_away_from_its_algorithm():
    for method in METHODS.values():
        assert hyperparams_file(method.algo) is not None
        assert len(method.options) <= (2 if method.name.endswith(("_training", "_fresh")) else 1)
        model = algorithm(method.algo)("MlpPolicy", "Pendulum-v1", buffer_size=10, **method.options)
        assert all(getattr(model, name) == value for name, value in method.options.items())


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
    found = {find_sequence(name, preset) for preset in ("laptop", "paper") for name in sequence_names(preset)}
    assert found == set(sequences())


@pytest.mark.parametrize(
    "name, preset, error",
    [
        (
            "CoffeeButton",
            "laptop",
            "no sequence 'CoffeeButton' .* did you mean CoffeeButton-HandlePress",
        ),
        ("CoffeeButton-HandlePress", "paper", "no sequence 'CoffeeButton-HandlePress' for the preset 'paper'"),
        ("CW10", "phone", "no preset 'phone'; presets: laptop, paper"),
    ],
)
def test_an_unknown_sequence_or_preset_is_an_error(name, preset, error):
    with pytest.raises(ValueError, match=error) as raised:
        find_sequence(name, preset)
    if preset != "phone":
        assert all(known in str(raised.value) for known in sequence_names(preset))


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"seeds": [1, -1]}, "seeds must not be negative"),
        ({"n_eval_episodes": 0}, "n_eval_episodes must be at least 1, not 0"),
        ({"save_freq": 0}, "save_freq must be at least 1, not 0"),
        ({"methods": ["sax"]}, "no method 'sax'"),
        ({"hyperparams": {"n_timesteps": 5}}, "n_timesteps follows from the sequence"),
        ({"env_kwargs": {"tasks": {"a", "b"}}}, "Options must be numbers, strings, lists or dictionaries"),
    ],
)
def test_a_wrong_plan_is_an_error(changes, error):
    with pytest.raises(ValueError, match=error):
        plan(**changes)


def test_the_runs_of_a_plan(tmp_path):
    cells = plan(methods=["continual_sac", "nbsp_hard_masks"], seeds=[1, 2, 1]).cells(tmp_path)
    assert [(cell.method, cell.seed) for cell in cells] == [
        ("continual_sac", 1),
        ("nbsp_hard_masks", 1),
        ("continual_sac", 2),
        ("nbsp_hard_masks", 2),
    ]
    assert cells[3].folder == tmp_path / "nbsp_hard_masks" / "seed_2"


def test_a_methods_option_goes_before_that_of_all(tmp_path):
    settings = plan(methods=["nbsp_hard_masks"], hyperparams={"mask_type": "soft", "gamma": 0.9})
    options = settings.settings_of(settings.cells(tmp_path)[0])
    assert options["hyperparams"] == {"mask_type": "hard", "gamma": 0.9}
    assert (options["algo"], options["env_id"]) == ("nbsp_sac", "MW-CoffeeButton-HandlePress-laptop-v0")
    json.dumps(options)


def test_a_plan_grows_by_methods_and_seeds(tmp_path):
    plan().save(tmp_path)
    (tmp_path / "nbsp_sac" / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)
    plan(methods=["sac"], seeds=[2]).save(tmp_path)
    together = Plan.load(tmp_path)
    assert (together.methods, together.seeds) == (["nbsp_sac", "sac"], [1, 2])


def test_options_are_as_they_come_out_of_the_file(tmp_path):
    made = plan(hyperparams={"train_freq": (1, "episode")})
    assert made.hyperparams == {"train_freq": [1, "episode"]}
    made.save(tmp_path)
    made.save(tmp_path)
    assert Plan.load(tmp_path) == made


def test_everything_may_change_until_a_run_has_got_somewhere(tmp_path):
    plan(hyperparams={"gama": 0.9}).save(tmp_path)
    plan(hyperparams={"gamma": 0.9}).save(tmp_path)
    assert Plan.load(tmp_path).hyperparams == {"gamma": 0.9}


def test_a_folder_is_of_one_comparison_only(tmp_path):
    plan().save(tmp_path)
    (tmp_path / "nbsp_sac" / "seed_1" / "checkpoint_100_steps").mkdir(parents=True)
    before = (tmp_path / "benchmark.json").read_text()
    with pytest.raises(ValueError, match=r"other settings: \{'hyperparams': \{\}\}, not \{'hyperparams': \{'gamma': 0.9\}\}"):
        plan(hyperparams={"gamma": 0.9}).save(tmp_path)
    assert (tmp_path / "benchmark.json").read_text() == before


@pytest.mark.parametrize("text", [None, "{", '{"colour": "red"}', "[]"])
def test_a_folder_without_a_whole_plan(text, tmp_path):
    if text is not None:
        (tmp_path / "benchmark.json").write_text(text)
    with pytest.raises(ValueError, match="holds no comparison" if text is None else "is damaged"):
        Plan.load(tmp_path)


def test_the_command_makes_the_same_plan(tmp_path):
    import argparse
    import shlex

    from sb3_nbsp.benchmark.run_command import add_arguments

    made = plan(methods=["sac", "nbsp_sac"], seeds=[3, 4], env_kwargs={"horizon": 50}, hyperparams={"ent_coef": "auto"})
    words = shlex.split(made.command(tmp_path))
    assert words[:4] == ["python", "-m", "sb3_nbsp.benchmark", "run"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(words[4:])
    assert (args.sequence, args.methods, args.seeds, args.preset) == (made.sequence, made.methods, made.seeds, made.preset)
    assert (dict(args.env_kwargs), dict(args.hyperparams), args.out) == (made.env_kwargs, made.hyperparams, tmp_path)
