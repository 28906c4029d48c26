"""The hooks of an intervention: when they are called, and what their answers do."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, random_states, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualPPO, ContinualSAC
from sb3_nbsp.checks import check_option, check_range
from sb3_nbsp.interventions import CycleReset, ExperienceReplay, GradientMasking, Intervention, Interventions, Phase
from sb3_nbsp.interventions.base import own_seed


def masks_of_training(**options: Any) -> GradientMasking:
    return GradientMasking(identification_data="training", **options)


class Diary(Intervention):
    """Writes every call into a list that several of them share."""

    book: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, name: str = "") -> None:
        self.name = name

    def _write(self, *entry: Any) -> None:
        self.book.append((self.name, *entry))

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._write("attach")

    def on_learn_start(self, reset: bool) -> None:
        self._write("learn", reset)

    def on_phase_start(self, phase: Phase) -> None:
        self._write("start", phase, self.agent.replay_buffer.size())

    def on_phase_end(self, phase: Phase) -> None:
        self._write("end", phase, self.agent.replay_buffer.size())

    def on_transition(self, rewards: Any, dones: Any, infos: Any) -> None:
        self._write("transition", rewards.tolist(), dones.tolist(), self.agent.replay_buffer.size())

    def before_step(self, network: Any) -> None:
        self._write("before", network)

    def after_step(self, network: Any) -> None:
        self._write("after", network)

    def after_train(self) -> None:
        self._write("trained")

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        self._write("source", gradient_step)
        return None


@pytest.fixture(autouse=True)
def new_book() -> None:
    Diary.book.clear()
    TaggedTask.played.clear()


def test_order_of_the_calls() -> None:
    agent = tiny(
        ContinualSAC, tagged_sequence(horizon=5, steps_per_task=10), interventions=[Diary("a"), Diary("b")], learning_starts=8
    )
    agent.learn(9)
    step = [
        ("a", "source", 1),
        ("b", "source", 1),
        *[(name, "before", "critic") for name in "ab"],
        *[(name, "after", "critic") for name in "ba"],  # the last to prepare is the first to undo
        *[(name, "before", "actor") for name in "ab"],
        *[(name, "after", "actor") for name in "ba"],
        ("a", "trained"),
        ("b", "trained"),
    ]
    rewards = [step[2] for step in TaggedTask.played[1.0]]
    expected: list[tuple[Any, ...]] = [("a", "attach"), ("b", "attach"), ("a", "learn", True), ("b", "learn", True)]
    for i in range(9):
        expected += [(name, "transition", [pytest.approx(rewards[i], rel=1e-6)], [i == 4], i + 1) for name in "ab"]
    assert Diary.book == expected + step
    Diary.book.clear()
    agent.learn(2, reset_num_timesteps=False)
    interesting = [
        entry for entry in Diary.book if entry[0] == "a" and entry[1] in ("learn", "transition", "end", "start", "trained")
    ]
    red, blue = Phase(0, "red"), Phase(1, "blue")
    # The last step is learned from before the phase ends
    assert [entry[1] for entry in interesting] == ["learn", "transition", "trained", "end", "start", "transition"]
    assert interesting[0] == ("a", "learn", False)
    assert interesting[3] == ("a", "end", red, 10)  # the buffer still holds the phase
    assert interesting[4] == ("a", "start", blue, 0)  # and is empty when the next one starts


def test_rewards_are_those_of_the_environment() -> None:
    env = VecNormalize(DummyVecEnv([tagged_sequence]))
    tiny(ContinualSAC, env, interventions=[Diary()]).learn(30)
    told = [entry[2][0] for entry in Diary.book if entry[1] == "transition"]
    np.testing.assert_allclose(told, [step[2] for step in TaggedTask.played[1.0]], rtol=1e-6)


class Ridge(Intervention):
    """Half the squared length of a network's parameters, times a factor."""

    def __init__(self, factor: float, network: str) -> None:
        self.factor, self.network = factor, network

    def penalty(self, network: Any) -> th.Tensor | None:
        if network != self.network:
            return None
        optimizer = getattr(self.agent, network).optimizer
        squares = [(p**2).sum() for group in optimizer.param_groups for p in group["params"]]
        return 0.5 * self.factor * th.stack(squares).sum()


def test_penalties_are_added_to_the_losses() -> None:
    """Under plain gradient descent, weight decay is the gradient of half the squared length."""

    def run(weight_decay: float, interventions: list[Intervention]) -> dict[str, th.Tensor]:
        policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {"weight_decay": weight_decay}}
        agent = tiny(ContinualSAC, TaggedTask(1.0), policy_kwargs=policy_kwargs, interventions=interventions)
        agent.learn(40)
        assert agent._n_updates == 20
        return parameters(agent)

    expected, plain = run(2.0, []), run(0.0, [])
    penalized = run(0.0, [Ridge(1.5, "critic"), Ridge(2.0, "actor"), Ridge(0.5, "critic")])
    for name, tensor in expected.items():
        th.testing.assert_close(penalized[name], tensor, atol=1e-5, rtol=1e-4)
    assert max((plain[name] - tensor).abs().max().item() for name, tensor in expected.items()) > 1e-2


class Source(Intervention):
    def __init__(self, tag: float, every: int) -> None:
        self.tag, self.every = tag, every

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._buffer = ReplayBuffer(10, agent.observation_space, agent.action_space, "cpu")
        observation = np.full((1, 4), self.tag, dtype=np.float32)
        self._buffer.add(observation, observation, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])

    def replay_source(self, gradient_step: int) -> ReplayBuffer | None:
        return self._buffer if gradient_step % self.every == 0 else None


@pytest.mark.parametrize(("value", "error"), [(0.5, "not 0.5"), (th.ones(2), r"not one of shape \(2,\)")])
@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
def test_a_penalty_that_is_no_scalar_is_refused(cls: Any, value: Any, error: str) -> None:
    class Wrong(Intervention):
        def penalty(self, network: Any) -> Any:
            return value

    agent = cls(
        "MlpPolicy",
        TaggedTask(1.0),
        device="cpu",
        interventions=[Wrong()],
        **({"learning_starts": 5, "batch_size": 4} if cls is ContinualSAC else {"n_steps": 8, "batch_size": 8}),
    )
    with pytest.raises(ValueError, match=rf"penalty\(\) of Wrong must return a tensor without dimensions, or None, {error}"):
        agent.learn(8)


class Keeps(Intervention):
    """Has any state."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._state: Any = None

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state["state"]


@pytest.mark.parametrize("state", [np.float64(1), np.ones(2), {"a": [range(3)]}, lambda: 1, th.nn.Linear(2, 2)])
def test_a_state_that_a_file_could_not_give_back_is_refused_before_anything_is_written(state: Any, tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, TaggedTask(1.0), interventions=[Keeps()])
    agent.save(tmp_path / "model")
    before = (tmp_path / "model.zip").read_bytes()
    agent.all_interventions.find(Keeps)._state = state
    with pytest.raises(
        ValueError, match=r"interventions: state_dict\(\) of Keeps holds .* cannot be read from a model's file"
    ):
        agent.save(tmp_path / "model")
    assert [each.name for each in tmp_path.iterdir()] == ["model.zip"] and (tmp_path / "model.zip").read_bytes() == before


@pytest.mark.parametrize(
    "state", [None, (1, 2.0, "a", True), {3: [{"a", "b"}]}, th.nn.Linear(2, 2).state_dict(), th.Size([2])]
)
def test_a_state_that_is_written_comes_back(state: Any, tmp_path: Path) -> None:
    agent = tiny(ContinualSAC, TaggedTask(1.0), interventions=[Keeps()])
    agent.all_interventions.find(Keeps)._state = state
    agent.save(tmp_path / "model")
    found = ContinualSAC.load(tmp_path / "model").all_interventions.find(Keeps)._state
    assert repr(found) == repr(state) or found == state


def test_a_method_that_is_nearly_a_hook_is_pointed_out(recwarn: pytest.WarningsRecorder) -> None:
    class Misspelt(Intervention):
        def pennalty(self, network: Any) -> None: ...

        def on_phase_begin(self, phase: Phase) -> None: ...

    class Own(Intervention):
        def penalty(self, network: Any) -> None: ...

        def penalty_of(self, network: Any) -> None: ...

        def measure(self) -> None: ...

    tiny(
        ContinualSAC,
        TaggedTask(1.0),
        interventions=[Misspelt(), Own(), *(each() for each in (GradientMasking, ExperienceReplay, CycleReset))],
    )
    messages = {str(each.message) for each in recwarn}
    assert messages == {
        "Misspelt.pennalty() is no hook, and no agent calls it; did you mean penalty?",
        "Misspelt.on_phase_begin() is no hook, and no agent calls it; did you mean on_phase_end?",
    }


def test_the_first_intervention_that_names_a_buffer_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    tags: list[float] = []
    sample = ReplayBuffer.sample

    def sampled(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = sample(self, *args, **kwargs)
        tags.append(batch.observations[0, 0].item())
        return batch

    monkeypatch.setattr(ReplayBuffer, "sample", sampled)
    tiny(ContinualSAC, TaggedTask(1.0), interventions=[Source(7.0, 3), Source(8.0, 2)]).learn(32)
    assert tags == [1, 8, 7, 8, 1, 7, 1, 8, 7, 8, 1, 7]


def test_hooks_that_do_nothing_change_nothing() -> None:
    ends = []
    for interventions in ([], [Intervention(), Intervention()]):
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions, fused=False)
        agent.learn(100)
        ends.append(parameters(agent))
    assert differing(*ends) == []


def test_two_of_a_kind_keep_their_states_apart() -> None:
    everyone = {"min_active_share": 0}
    first = masks_of_training(skill_proportion=0.1, **everyone)
    second = masks_of_training(skill_proportion=0.5, mask_type="hard", **everyone)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[first, ExperienceReplay(50), second])
    agent.learn(100)
    state = agent.all_interventions.state_dict()
    assert list(state) == ["GradientMasking", "ExperienceReplay", "GradientMasking 2"]
    counts = [int((th.cat([*masking.masks.values()]) < 1).sum()) for masking in (first, second)]
    assert counts == [3 * round(1.6), 3 * 8]
    expected = copy.deepcopy((first.masks, second.masks))
    fresh = [masks_of_training(), ExperienceReplay(), masks_of_training(mask_type="hard")]
    other = tiny(ContinualSAC, tagged_sequence(), interventions=fresh)
    other.all_interventions.load_state_dict(state)
    assert differing(fresh[0].masks, expected[0]) == [] == differing(fresh[2].masks, expected[1])  # type: ignore[attr-defined]


def class_of_the_user(name: str, base: type[Intervention] = Intervention) -> type[Intervention]:
    return type(name, (base,), {"state_dict": lambda self: {"mine": 1}, "load_state_dict": lambda self, state: None})


@pytest.mark.parametrize("agent_class", [ContinualSAC, ContinualPPO])
def test_states_of_two_classes_of_one_name_could_not_be_told_apart(agent_class: Any) -> None:
    first, second = class_of_the_user("Mine"), class_of_the_user("Mine")
    message = r"there are two classes {0}, test_hooks\.{0} and .*\.{0}, whose states a file could not tell apart: rename one"
    for name, given in {"Mine": [first(), second()], "CycleReset": [class_of_the_user("CycleReset")()]}.items():
        with pytest.raises(ValueError, match=message.format(name)):
            agent_class("MlpPolicy", TaggedTask(1.0), interventions=given, device="cpu")
    derived = class_of_the_user("CycleReset", CycleReset)()
    agent = agent_class("MlpPolicy", TaggedTask(1.0), interventions=[first(), first(), derived], device="cpu")
    assert list(agent.all_interventions.state_dict()) == ["Mine", "Mine 2", "CycleReset"]


def test_interventions_of_the_user_act_behind_those_of_nbsp() -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), interventions=[Diary("mine")])
    assert [type(each) for each in agent.all_interventions._all] == [GradientMasking, ExperienceReplay, Diary]


def test_unknown_states_are_refused_unless_told_otherwise() -> None:
    hooks = Interventions([Intervention()])
    with pytest.raises(ValueError, match=r"GradientMasking.*lacks.*Intervention"):
        hooks.load_state_dict({"GradientMasking": {}})
    with pytest.raises(ValueError, match=r"replay buffer.*'Intervention 2'.*lacks.*Intervention"):
        hooks.load_memory_state({"Intervention 2": 1})
    hooks.load_state_dict({"GradientMasking": {}}, strict=False)
    hooks.load_state_dict({})


class Anchor(Intervention):
    """Remembers the network that was loaded."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._anchor = parameters(agent)
        self._calls = self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": 7}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._count = state["count"]

    def on_load(self) -> None:
        assert self._count in (0, 7)
        self._anchor, self._calls = parameters(self.agent), self._calls + 1


@pytest.mark.parametrize("of_plain_sb3", [False, True])
def test_after_loading_an_intervention_sees_the_loaded_network_and_its_own_state(tmp_path: Path, of_plain_sb3: bool) -> None:
    own = {"interventions": [Anchor()]}
    saved = tiny(SAC, TaggedTask(1.0)) if of_plain_sb3 else tiny(ContinualSAC, TaggedTask(1.0), **own)
    saved.learn(40)
    saved.save(tmp_path / "model")
    loaded = ContinualSAC.load(tmp_path / "model", **({"interventions": [Anchor()]} if of_plain_sb3 else {}))
    (anchor,) = loaded.all_interventions
    assert differing(anchor._anchor, parameters(saved)) == []  # the entropy coefficient, which SB3 loads last, too
    assert (anchor._calls, anchor._count) == (1, 0 if of_plain_sb3 else 7)
    fresh = tiny(ContinualSAC, TaggedTask(1.0), seed=1, interventions=[Anchor()])
    (anchor,) = fresh.all_interventions
    assert anchor._calls == 0
    fresh.set_parameters(saved.get_parameters())
    assert anchor._calls == 1 and th.equal(anchor._anchor["actor.mu.weight"], saved.actor.mu.weight)


def test_pickles_hold_the_options_only() -> None:
    masking = GradientMasking(mask_alpha=0.3)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[masking])
    agent.learn(60)
    assert masking.masks
    copied = pickle.loads(pickle.dumps(masking))
    assert vars(copied) == vars(GradientMasking(mask_alpha=0.3))


def test_own_seeds_differ() -> None:
    agents = [tiny(SAC, TaggedTask(1.0), seed=seed) for seed in (None, None, 0, 1)]
    seeds = [own_seed(agent, Phase(phase, "red"), purpose) for agent in agents for phase in (0, 1) for purpose in (0, 1)]
    assert len(set(seeds)) == 16
    for agent, first in zip(agents, seeds[::4], strict=True):
        assert own_seed(agent, Phase(0, "blue"), 0) == first
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("cls", [ContinualSAC, ContinualPPO])
def test_an_agent_without_a_seed_draws_one_and_keeps_it(tmp_path: Path, cls: Any) -> None:
    def make(seed: int | None = None) -> Any:
        return cls("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=seed, device="cpu")

    before = random_states()
    agents = [make(), make()]
    drawn = [own_seed(agent, 3, 1) for agent in agents]
    # Of the global random streams, PyTorch's initialized the networks; NumPy's was left alone
    assert random_states()[0] == before[0]
    assert drawn[0] != drawn[1]
    agents[0].save(tmp_path / "model")
    assert own_seed(cls.load(tmp_path / "model"), 3, 1) == drawn[0]  # its resets go on as they would have
    assert own_seed(cls.load(tmp_path / "model", seed=4), 3, 1) == own_seed(make(4), 3, 1)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int64(1)])
def test_check_range_accepts(value: Any) -> None:
    check_range("x", value, 0, 1)


@pytest.mark.parametrize("value", [-1e-9, 1.1, float("nan"), float("inf"), "0.5", None, True, [0.5], 1j])
def test_check_range_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^x must be a number in \[0, 1\], not "):
        check_range("x", value, 0, 1)


def test_check_range_of_an_open_interval() -> None:
    with pytest.raises(ValueError, match=r"^x must be a number in \(0, 1\], not 0$"):
        check_range("x", 0, 0, 1, low_open=True)


def test_check_option() -> None:
    check_option("x", "a", ("a", "b"))
    with pytest.raises(ValueError, match=r"^x must be one of 'a', 'b', not 'c'$"):
        check_option("x", "c", ("a", "b"))


def test_an_intervention_works_for_one_agent_only() -> None:
    shared = CycleReset()
    agent = ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[shared], device="cpu")
    with pytest.raises(ValueError, match="interventions: this CycleReset already works for another agent"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[shared], device="cpu")
    assert shared.agent is agent
    agent.all_interventions.attach(agent)  # the same agent's networks may be built again
    assert repr(agent.all_interventions) == "Interventions(CycleReset)"


def test_an_intervention_that_did_not_fit_can_be_given_to_another_agent() -> None:
    replay = ExperienceReplay()
    with pytest.raises(ValueError, match="n_steps=2"):
        tiny(ContinualSAC, tagged_sequence(), interventions=[replay], n_steps=2)
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[replay])
    assert replay.agent is agent
