"""Misspelt options are errors that name the class and what may have been meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from tagged_tasks import TaggedTask, tiny

from sb3_nbsp import NBSPSAC, P3O, SBPSAC, ContinualPPO, ContinualSAC

MISSPELT = [
    (NBSPSAC, "mask_alhpa", "mask_alpha"),
    (NBSPSAC, "learning_start", "learning_starts"),
    (ContinualSAC, "clear_replay_bufer", "clear_replay_buffer"),
    (SBPSAC, "distil_alpha", "distill_alpha"),
    (P3O, "reset_freqency", "reset_frequency"),
    (ContinualPPO, "n_step", "n_steps"),
]


@pytest.mark.parametrize(("cls", "name", "meant"), MISSPELT)
def test_a_constructor_says_what_may_have_been_meant(cls: type, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"^{cls.__name__} has no option {name}; did you mean {meant}\\?$"):
        cls("MlpPolicy", TaggedTask(1.0), device="cpu", **{name: 1})
    with pytest.raises(TypeError, match=f"^{cls.__name__} has no option zzzzzz$"):
        cls("MlpPolicy", TaggedTask(1.0), device="cpu", zzzzzz=1)


@pytest.mark.parametrize("cls", [NBSPSAC, P3O])
@pytest.mark.parametrize("name", ["net_arch", "activation_fn", "log_std_init"])
def test_an_option_of_the_policy_belongs_into_policy_kwargs(cls: type, name: str) -> None:
    with pytest.raises(TypeError, match=rf"no option {name}; did you mean policy_kwargs=dict\({name}=\.\.\.\)\?$"):
        cls("MlpPolicy", TaggedTask(1.0), device="cpu", **{name: 1})


@pytest.mark.parametrize(("cls", "name", "meant"), MISSPELT[::5])
def test_load_says_what_may_have_been_meant(tmp_path: Path, cls: type, name: str, meant: str) -> None:
    cls("MlpPolicy", TaggedTask(1.0), device="cpu").save(tmp_path / "model")
    with pytest.raises(TypeError, match=f"^{cls.__name__} has no option {name}; did you mean {meant}\\?$"):
        cls.load(tmp_path / "model", **{name: 1})  # type: ignore[attr-defined]


def test_load_takes_every_option_and_attribute_that_there_is(tmp_path: Path) -> None:
    agent = tiny(NBSPSAC, TaggedTask(1.0))
    agent.note = "of the user"
    agent.save(tmp_path / "model")
    own = {
        "note": "another",
        "num_timesteps": 3,
        "replay_buffer": agent.replay_buffer,
        "mask_alpha": 0.5,
        "ep_info_buffer": None,
    }
    loaded = NBSPSAC.load(tmp_path / "model", **own)
    assert all(getattr(loaded, name) is value or getattr(loaded, name) == value for name, value in own.items())
    with pytest.raises(ValueError, match="mask_alpha"):
        NBSPSAC.load(tmp_path / "model", mask_alpha=5)


class Popping(ContinualSAC):
    """Takes its own option out of its keyword arguments, as users do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.mine = kwargs.pop("mine", 1)
        super().__init__(*args, **kwargs)


def test_a_subclass_has_options_of_its_own(tmp_path: Path) -> None:
    agent = tiny(Popping, TaggedTask(1.0), mine=np.float64(2.0))
    agent.save(tmp_path / "model")
    assert Popping.load(tmp_path / "model").mine == 2.0 and Popping.load(tmp_path / "model", mine=3).mine == 3
    with pytest.raises(TypeError, match="Popping has no option mien"):
        tiny(Popping, TaggedTask(1.0), mien=2)


def test_sb3s_word_about_ppo_on_a_gpu_is_said_of_our_classes() -> None:
    agent = P3O("MlpPolicy", TaggedTask(1.0), device="cpu")
    agent.device = th.device("cuda")
    with pytest.warns(UserWarning, match="You are trying to run P3O on the GPU"):
        agent._maybe_recommend_cpu()
