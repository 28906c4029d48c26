"""Files of ours in plain SB3, and files of plain SB3's first versions in ours."""

from __future__ import annotations

import base64
import json
import pickle
import sys
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rl_zoo3.callbacks import ParallelTrainCallback
from saved_agents import nbsp
from stable_baselines3 import PPO, SAC
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import CBPSAC, NBSPSAC, P3O, SBPSAC, ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import ExperienceReplay, GradientMasking

PPO_OPTIONS: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "seed": 0, "device": "cpu"}


def agents() -> dict[str, tuple[Any, type]]:
    resets = {"reset_frequency": 64, "reset_rate": 0.25, "max_distill_epochs": 1}
    return {
        "NBSPSAC": (nbsp(), SAC),
        "SBPSAC": (tiny(SBPSAC, TaggedTask(1.0), **resets), SAC),
        "CBPSAC": (tiny(CBPSAC, TaggedTask(1.0)), SAC),
        "P3O": (P3O("MlpPolicy", TaggedTask(1.0), **PPO_OPTIONS, **resets), PPO),
    }


@pytest.mark.parametrize("name", ["NBSPSAC", "SBPSAC", "CBPSAC", "P3O"])
def test_plain_sb3_loads_our_files_to_act_and_to_go_on(tmp_path: Path, name: str) -> None:
    agent, plain_class = agents()[name]
    agent.learn(128)
    agent.save(tmp_path / "model")
    plain = plain_class.load(tmp_path / "model", env=TaggedTask(1.0))
    assert type(plain) is plain_class
    assert differing(parameters(agent), parameters(plain)) == []
    observation = np.array([1.0, 0.5, 0.2, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(*(each.predict(observation, deterministic=True)[0] for each in (agent, plain)))
    before = parameters(plain)
    plain.learn(64, reset_num_timesteps=False)
    assert plain.num_timesteps == 192 and differing(before, parameters(plain))
    plain.save(tmp_path / "plain")  # and back
    again = type(agent).load(tmp_path / "plain", env=TaggedTask(1.0))
    assert differing(parameters(plain), parameters(again)) == []
    agent.set_parameters(plain.get_parameters())
    plain.set_parameters(agent.get_parameters())
    assert differing(parameters(agent), parameters(again)) == (["log_ent_coef"] if plain_class is SAC else [])


def test_the_zip_holds_nothing_of_ours_among_the_parameters(tmp_path: Path) -> None:
    agent = nbsp()
    agent.save(tmp_path / "ours")
    tiny(SAC, tagged_sequence()).save(tmp_path / "plain")
    ours, plain = (set(zipfile.ZipFile(tmp_path / f"{name}.zip").namelist()) for name in ("ours", "plain"))
    assert ours - plain == {"interventions.pt", "random_states.pt"} and plain < ours


@pytest.mark.parametrize("cls", [ContinualSAC, NBSPSAC])
def test_the_zoos_parallel_training_works_and_says_that_methods_do_not_act(cls: type) -> None:
    agent = tiny(cls, TaggedTask(1.0), learning_starts=10)
    before = parameters(agent)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        agent.learn(60, callback=ParallelTrainCallback(gradient_steps=1, sleep_time=0.01))
    assert differing(before, parameters(agent))
    assert any("has replaced train()" in str(each.message) for each in caught) == (cls is NBSPSAC)


# Files of the first versions, with Gym's spaces


class _Unreadable:
    def __reduce__(self) -> Any:
        return len, (1,)


def write_old_file(path: Path, agent: Any) -> None:
    """What SB3 1.0 wrote: Gym's spaces, schedules as functions of an older Python, no member of ours."""
    agent.save(path)
    members = {name: zipfile.ZipFile(path).read(name) for name in zipfile.ZipFile(path).namelist()}
    data = json.loads(members["data"])
    gym_box = types.ModuleType("gym.spaces.box")
    fake_gym = {name: types.ModuleType(name) for name in ("gym", "gym.spaces")} | {"gym.spaces.box": gym_box}

    class Box:
        def __init__(self, space: gym.spaces.Box, random: Any) -> None:
            self.dtype, self._shape, self.low, self.high = space.dtype, space.shape, space.low, space.high
            self.bounded_below, self.bounded_above = space.bounded_below, space.bounded_above
            self.np_random = random

    Box.__module__, Box.__qualname__ = "gym.spaces.box", "Box"
    gym_box.Box = Box  # type: ignore[attr-defined]
    sys.modules.update(fake_gym)
    try:
        for name in ("observation_space", "action_space"):
            if not isinstance(getattr(agent, name), gym.spaces.Box):
                continue
            old = Box(getattr(agent, name), np.random.RandomState(1) if name == "action_space" else None)
            data[name] = {":type:": "", ":serialized:": base64.b64encode(pickle.dumps(old)).decode()}
    finally:
        for name in fake_gym:
            del sys.modules[name]
    # Reading what another version of Python has pickled of a function ends in a TypeError
    code = pickle.dumps(_Unreadable())
    for name in ("learning_rate", "lr_schedule", *(["clip_range"] if "clip_range" in data else [])):
        data[name] = {":type:": "<class 'function'>", ":serialized:": base64.b64encode(code).decode()}
    members["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if not name.endswith(".pt"):
                archive.writestr(name, content)


@pytest.mark.parametrize("cls", [NBSPSAC, P3O])
def test_models_that_the_zoo_published_load_as_they_are_stored(tmp_path: Path, cls: type) -> None:
    plain_class, options = (SAC, {}) if cls is NBSPSAC else (PPO, PPO_OPTIONS)
    plain = plain_class("MlpPolicy", TaggedTask(1.0), **{"seed": 0, "device": "cpu", **options})
    write_old_file(tmp_path / "old.zip", plain)
    with pytest.raises(ModuleNotFoundError, match="No module named 'gym'"):
        plain_class.load(tmp_path / "old.zip")
    with pytest.warns(UserWarning, match="learning_rate") as caught:
        loaded = cls.load(tmp_path / "old.zip", env=TaggedTask(1.0))  # type: ignore[attr-defined]
    (ours,) = [each for each in caught if "another version of Python" in str(each.message)]
    assert ("clip_range=0.2" in str(ours.message)) == (cls is P3O) and "learning_rate=0.0003" in str(ours.message)
    assert not any(name.split(".")[0] == "gym" for name in sys.modules)
    observation = np.array([1.0, 0.5, 0.2, 0.0], dtype=np.float32)
    np.testing.assert_array_equal(
        plain.predict(observation, deterministic=True)[0], loaded.predict(observation, deterministic=True)[0]
    )
    before = parameters(loaded)
    loaded.learn(130)
    assert differing(before, parameters(loaded))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # given, nothing is missing
        given = {"learning_rate": 1e-3, **({"clip_range": 0.1} if cls is P3O else {})}
        cls.load(tmp_path / "old.zip", **given)  # type: ignore[attr-defined]


def test_bounds_that_were_the_largest_number_then_and_are_infinite_now_are_the_same(tmp_path: Path) -> None:
    largest = float(np.finfo(np.float32).max)
    plain = PPO("MlpPolicy", "CartPole-v1", **PPO_OPTIONS)
    plain.observation_space = gym.spaces.Box(
        np.array([-4.8, -largest, -0.41887903, -largest], np.float32),
        np.array([4.8, largest, 0.41887903, largest], np.float32),
    )
    write_old_file(tmp_path / "old.zip", plain)
    agent = ContinualPPO.load(tmp_path / "old.zip", env=gym.make("CartPole-v1"), learning_rate=1e-3, clip_range=0.1)
    agent.learn(64)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        ContinualPPO.load(tmp_path / "old.zip", env=TaggedTask(1.0), learning_rate=1e-3, clip_range=0.1)


# What cannot be imported


def test_own_interventions_that_cannot_be_imported_are_left_out_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_methods.py").write_text(
        "from sb3_nbsp.interventions import Intervention\n\nclass Mine(Intervention):\n    def state_dict(self):\n"
        "        return {'count': 1}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_methods

    agent = ContinualPPO("MlpPolicy", TaggedTask(1.0), interventions=[my_methods.Mine()], **PPO_OPTIONS)
    agent.save(tmp_path / "model")
    monkeypatch.undo()
    del sys.modules["my_methods"]
    with pytest.raises(ValueError, match=r"interventions needs what cannot be imported here.*my_methods.*\[\] to act without"):
        ContinualPPO.load(tmp_path / "model")
    with pytest.warns(UserWarning, match="holds state of Mine, which is switched off: it is dropped"):
        loaded = ContinualPPO.load(tmp_path / "model", custom_objects={"interventions": []})
    assert differing(parameters(agent), parameters(loaded)) == []


@pytest.mark.parametrize("way", ["custom_objects", "option"])
@pytest.mark.parametrize("name", ["goal_metric", "learning_rate", "policy_kwargs"])
def test_options_that_cannot_be_imported_are_given_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, way: str
) -> None:
    (tmp_path / "my_options.py").write_text(
        "from stable_baselines3.common.torch_layers import FlattenExtractor\n\nclass Extractor(FlattenExtractor): ...\n\n"
        "def goal_metric(reward, done, info):\n    return reward\n\ndef learning_rate(left):\n    return 0.01\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_options

    small = {"net_arch": [8]}
    own = {
        "goal_metric": my_options.goal_metric,
        "learning_rate": my_options.learning_rate,
        "policy_kwargs": {**small, "features_extractor_class": my_options.Extractor},
    }
    tiny(NBSPSAC, tagged_sequence(), **{name: own[name]}).save(tmp_path / "model")
    monkeypatch.undo()
    del sys.modules["my_options"]
    with pytest.raises(ValueError, match=rf"{name} needs what cannot be imported here.*custom_objects={{'{name}': \.\.\.}}"):
        NBSPSAC.load(tmp_path / "model")
    other = {"goal_metric": "auto", "learning_rate": 1e-3, "policy_kwargs": small}[name]
    loaded = NBSPSAC.load(
        tmp_path / "model", **({"custom_objects": {name: other}} if way == "custom_objects" else {name: other})
    )
    assert getattr(loaded, name) == other


@pytest.mark.parametrize(("option", "lost"), [("masking", "GradientMasking"), ("replay", "ExperienceReplay")])
def test_a_method_is_switched_off_at_loading_with_a_word(tmp_path: Path, option: str, lost: str) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    with pytest.warns(UserWarning, match=f"saved model holds state of {lost}, which is switched off: it is dropped"):
        loaded = NBSPSAC.load(tmp_path / "model", env=tagged_sequence(), **{option: False})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded.load_replay_buffer(tmp_path / "buffer")
    assert [str(each.message) for each in caught if "dropped" in str(each.message)] == (
        ["The saved replay buffer holds state of ExperienceReplay, which is switched off: it is dropped"]
        if option == "replay"
        else []
    )
    (kept,) = loaded.all_interventions
    if option == "masking":
        assert kept.memory.tasks == agent.all_interventions._all[1].memory.tasks and loaded.replay_buffer.size() == 15
    else:
        assert differing(kept.masks, agent.all_interventions.find(GradientMasking).masks) == []
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.phase.index == 2
    loaded.save(tmp_path / "again")
    NBSPSAC.load(tmp_path / "again")  # still without


def test_what_is_remembered_does_not_go_unnoticed(tmp_path: Path) -> None:
    agent, plain = nbsp(), tiny(SAC, tagged_sequence())
    agent.learn(75)
    plain.learn(30)
    plain.save_replay_buffer(tmp_path / "plain")
    with pytest.warns(UserWarning, match="holds no memory of ExperienceReplay: its present one is dropped"):
        agent.load_replay_buffer(tmp_path / "plain")


@pytest.mark.parametrize("keeps_buffer", [True, False])
def test_what_plain_sb3_has_dropped_in_between_is_said(tmp_path: Path, keeps_buffer: bool) -> None:
    agent = nbsp()
    agent.learn(75)
    assert agent.phase.index == 1
    agent.save(tmp_path / "ours")
    agent.save_replay_buffer(tmp_path / "ours")
    plain = SAC.load(tmp_path / "ours", env=tagged_sequence())
    if keeps_buffer:
        plain.load_replay_buffer(tmp_path / "ours")
    plain.learn(20, reset_num_timesteps=False)
    plain.save(tmp_path / "plain")
    plain.save_replay_buffer(tmp_path / "plain")
    with pytest.warns(UserWarning, match=r"plain was saved by plain SB3, which has dropped the state of GradientMasking"):
        again = NBSPSAC.load(tmp_path / "plain", env=tagged_sequence())
    assert not again.all_interventions.find(GradientMasking).masks
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        again.load_replay_buffer(tmp_path / "plain")
    said = [str(each.message) for each in found if "holds no memory: ExperienceReplay knows nothing" in str(each.message)]
    assert (len(said), again.all_interventions.find(ExperienceReplay).memory is None) == (
        (0, False) if keeps_buffer else (1, True)
    )


def test_nothing_is_said_where_nothing_was_dropped(tmp_path: Path) -> None:
    tiny(SAC, tagged_sequence()).save(tmp_path / "plain")
    agent = tiny(ContinualSAC, tagged_sequence())
    agent.learn(20)
    agent.save(tmp_path / "ours")
    SAC.load(tmp_path / "ours").save(tmp_path / "again")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        NBSPSAC.load(tmp_path / "plain")
        ContinualSAC.load(tmp_path / "again")
    assert [str(each.message) for each in found] == []


@pytest.mark.parametrize("dropped", ["none", "deleted"])
def test_a_replay_buffer_loads_where_there_is_none_any_more(tmp_path: Path, dropped: str) -> None:
    agent = nbsp()
    agent.learn(75)
    agent.save_replay_buffer(tmp_path / "buffer")
    if dropped == "none":
        agent.replay_buffer = None
    else:
        del agent.replay_buffer
    agent.load_replay_buffer(tmp_path / "buffer")
    assert agent.replay_buffer.size() == 15 and agent.all_interventions._all[1].memory.size() == 50
