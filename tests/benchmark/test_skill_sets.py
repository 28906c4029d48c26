"""General and specific skill neurons, by hand."""

import pytest
import torch as th

from sb3_nbsp.benchmark.skill_sets import control_set, skill_sets


def bits(text: str) -> th.Tensor:
    return th.tensor([character == "1" for character in text])


SKILLS = {
    "open": {"actor": bits("110100"), "qf0": bits("1000")},
    "close": {"actor": bits("011100"), "qf0": bits("1000")},
}


def test_two_tasks() -> None:
    general, first, second = skill_sets(SKILLS, ["actor"])
    assert (general.name, first.name, second.name) == ("open ∩ close", "open ∖ close", "close ∖ open")
    assert [each.is_general for each in (general, first, second)] == [True, False, False]
    assert general.neurons["actor"].equal(bits("010100"))
    assert first.neurons["actor"].equal(bits("100000"))
    assert second.neurons["actor"].equal(bits("001000"))
    assert [each.size for each in (general, first, second)] == [2, 1, 1]


def test_several_networks_count_together() -> None:
    general, first, _ = skill_sets(SKILLS, ["actor", "qf0"])
    assert general.neurons["qf0"].equal(bits("1000")) and general.size == 3
    assert not first.neurons["qf0"].any() and first.size == 1


def test_every_pair_of_three_tasks() -> None:
    skills = {name: {"actor": bits(text)} for name, text in (("a", "100"), ("b", "110"), ("c", "011"))}
    sets = skill_sets(skills, ["actor"])
    assert [each.name for each in sets if each.is_general] == ["a ∩ b", "a ∩ c", "b ∩ c"]
    assert [each.size for each in sets] == [1, 0, 1, 0, 1, 2, 1, 1, 1]


def test_control_is_active_and_nobodys_skill() -> None:
    skills = {name: {"actor": bits(text)} for name, text in (("a", "11100000"), ("b", "11000000"), ("c", "00000001"))}
    general = skill_sets(skills, ["actor"])[0]
    # Left are neurons 3 to 6, of which the fifth is dead
    active = {"actor": bits("11110111")}
    drawn = set()
    for seed in range(20):
        control = control_set(general, skills, active, seed)
        assert control.size == 2 and not control.is_general
        assert control.name == "random, beside a ∩ b"
        drawn |= set(control.neurons["actor"].nonzero().flatten().tolist())
    assert drawn == {3, 5, 6}
    assert (
        control_set(general, skills, active, 7)
        .neurons["actor"]
        .equal(control_set(general, skills, active, 7).neurons["actor"])
    )


@pytest.mark.parametrize(("active", "size"), [("00010000", 1), ("11100001", 0)])
def test_control_with_too_few_others(active: str, size: int) -> None:
    skills = {name: {"actor": bits(text)} for name, text in (("a", "11100000"), ("b", "11000001"))}
    general = skill_sets(skills, ["actor"])[0]
    assert control_set(general, skills, {"actor": bits(active)}, 0).size == size


def test_control_leaves_the_global_random_stream_alone() -> None:
    general = skill_sets(SKILLS, ["actor"])[0]
    th.manual_seed(0)
    expected = th.rand(1)
    th.manual_seed(0)
    control_set(general, SKILLS, {"actor": bits("111111")}, 3)
    assert th.rand(1) == expected
