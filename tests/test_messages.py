import pytest

from sb3_nbsp.messages import did_you_mean, warn


def test_a_warning_shows_the_users_line():
    with pytest.warns(UserWarning, match="told") as told:
        warn("told")
    assert [warning.filename for warning in told] == [__file__]


def test_a_name_that_is_nearly_right_is_suggested():
    assert did_you_mean("cycels", ["tasks", "cycles", "horizon"]) == "; did you mean cycles?"
    assert did_you_mean("nothing_like_it", ["tasks", "cycles"]) == ""
