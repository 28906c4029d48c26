import ast
import sys
import warnings
from pathlib import Path

import pytest

from sb3_nbsp import messages
from sb3_nbsp.messages import ArgumentParser, did_you_mean, warn, warn_without_place


def test_a_warning_shows_the_users_line():
    with pytest.warns(UserWarning, match="told") as told:
        warn("told")
    assert [warning.filename for warning in told] == [__file__]


def test_the_warning_of_a_command_is_a_sentence(monkeypatch):
    monkeypatch.setattr("warnings.formatwarning", usual := warnings.formatwarning)
    warn_without_place()
    for place in ("<frozen runpy>", sys.argv[0]):
        assert warnings.formatwarning("no use", UserWarning, place, 88) == "Warning: no use\n"
    assert warnings.formatwarning("no use", UserWarning, "/own.py", 8, "go()") == usual(
        "no use", UserWarning, "/own.py", 8, "go()"
    )


def test_a_name_that_is_nearly_right_is_suggested():
    assert did_you_mean("cycels", ["tasks", "cycles", "horizon"]) == "; did you mean cycles?"
    assert did_you_mean("P3O", ["ppo", "p3o"]) == "; did you mean p3o?"
    assert did_you_mean("NBSP", ["p3o", "nbsp_sac", "nbsp_goal"], beginnings=True) == "; did you mean nbsp_sac?"
    assert did_you_mean("", ["p3o"], beginnings=True) == ""
    assert did_you_mean("nothing_like_it", ["tasks", "cycles"]) == ""


def test_no_other_module_warns_by_itself():
    package = Path(messages.__file__).parent
    calls = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "warn" and ast.unparse(node.value) == "warnings"
    }
    assert calls == {"messages.py"}


@pytest.mark.parametrize(
    "given, hint", [("runn", "'runn'; did you mean run?"), ("PLO", "'PLO'; did you mean plot?"), ("x", "'x'")]
)
def test_the_parser_says_which_choice_was_probably_meant(given, hint, capsys):
    parser = ArgumentParser()
    parser.add_argument("command", choices=["run", "plot", "3"])
    with pytest.raises(SystemExit):
        parser.parse_args([given])
    assert f"argument command: invalid choice: {hint} (choose from 'run', 'plot', '3')" in capsys.readouterr().err
    assert parser.parse_args(["run"]).command == "run"
