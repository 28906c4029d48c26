"""The hooks of an intervention: when they are called, and what their answers do."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import TaggedTask, differing, parameters, tagged_sequence, tiny

from sb3_nbsp import NBSPSAC, ContinualPPO, ContinualSAC
from sb3_nbsp.interventions import CycleReset, ExperienceReplay, GradientMasking, Intervention, Phase


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


def test_interventions_of_the_user_act_behind_those_of_nbsp() -> None:
    agent = tiny(NBSPSAC, tagged_sequence(), interventions=[Diary("mine")])
    assert [type(each) for each in agent.all_interventions._all] == [GradientMasking, ExperienceReplay, Diary]


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
