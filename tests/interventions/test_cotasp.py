"""CoTASP: codes, masks and dictionaries against numbers by hand; earlier tasks stay as they were, to the last bit."""

from __future__ import annotations

import copy
import inspect
from functools import partial
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from tagged_tasks import ImageTask, differing, parameters, random_states, tagged_sequence, tiny
from torch import nn

from sb3_nbsp import ContinualPPO, ContinualSAC, CoTASPDiscreteSAC, CoTASPSAC
from sb3_nbsp.interventions import ClonEx, ContinualBackprop, CoTASP, Intervention, PackNet, cotasp
from sb3_nbsp.interventions.unit_gates import UnitGate
from sb3_nbsp.tasks import SequenceEvaluation, TaskSequence

OBSERVATIONS = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
WIDE = {"net_arch": [16, 16]}


def cotasp_agent(env: Any, **kwargs: Any) -> Any:
    defaults = {"weight_steps": 6, "code_steps": 3, "distill_steps": 4, "policy_kwargs": copy.deepcopy(WIDE)}
    return tiny(CoTASPSAC, env, **{**defaults, **kwargs})


def part_of(agent: Any) -> CoTASP:
    return agent.all_interventions.find(CoTASP)


def distribution(agent: Any, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and logarithm of the standard deviation of the policy on a task."""
    agent.set_task(task)
    with th.no_grad():
        mean, log_std, _ = agent.actor.get_action_dist_params(th.as_tensor(OBSERVATIONS))
    agent.set_task(agent.phase.task)
    return mean.numpy(), log_std.numpy()


class Ends(Intervention):
    """The policy at the end of each phase."""

    def __init__(self) -> None:
        self._ends: list[Any] = []

    def on_phase_end(self, phase: Any) -> None:
        self._ends.append((phase.task, distribution(self.agent, phase.task)))


def test_with_all_units_on_it_is_the_plain_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cotasp, "lasso", lambda atoms, target, weight: th.full((len(atoms),), 0.5))
    ends = []
    for cls, options in ((ContinualSAC, {}), (CoTASPSAC, {"code_steps": 0})):
        agent = tiny(cls, tagged_sequence(), fused=False, **options).learn(59)
        ends.append((parameters(agent), random_states()))
    assert differing(ends[0][0], ends[1][0]) == [] and ends[0][1] == ends[1][1]


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"fused": False, "code_steps": 0},
        {"weight_steps": 1, "code_steps": 5},
        {"policy_kwargs": {**WIDE, "optimizer_class": th.optim.AdamW, "activation_fn": nn.Tanh}},
        {"revisit": "new"},
    ],
)
def test_earlier_tasks_are_played_as_at_their_end_to_the_last_bit(kwargs: dict[str, Any]) -> None:
    ends = Ends()
    agent = cotasp_agent(tagged_sequence(["red", "blue", "green"], cycles=1), interventions=[ends], **kwargs)
    before = parameters(agent)
    agent.learn(180)
    assert [task for task, _ in ends._ends] == ["red", "blue", "green"]
    for task, expected in ends._ends:
        for own, other in zip(distribution(agent, task), expected, strict=True):
            np.testing.assert_array_equal(own, other)
    changed = differing(before, parameters(agent))
    assert {"actor.latent_pi.0.weight", "actor.mu.weight", "actor.log_std.weight", "critic.qf0.0.weight"} <= set(changed)


def test_a_shared_standard_deviation_drifts_and_the_mean_does_not() -> None:
    ends = Ends()
    agent = cotasp_agent(tagged_sequence(cycles=1), interventions=[ends], mask_log_std=False)
    agent.learn(120)
    mean, log_std = distribution(agent, "red")
    np.testing.assert_array_equal(mean, ends._ends[0][1][0])
    assert (log_std != ends._ends[0][1][1]).any()


class Steps(Intervention):
    """What moves in each step of the actor: its weights, the codes of the current task, those of others."""

    def __init__(self) -> None:
        self._moves: list[tuple[bool, bool, bool]] = []
        self._before: Any = None

    def _now(self) -> Any:
        part = part_of(self.agent)
        weights = [each.detach().clone() for each in self.agent.actor.parameters()]
        codes = copy.deepcopy(part._codes)
        return weights, codes.pop(part._current), codes

    def on_batch(self, data: Any) -> None:
        self._before = self._now()

    def after_step(self, network: Any) -> None:
        if network == "actor":
            changed = [
                any(not th.equal(*pair) for pair in zip(before, after, strict=True))
                for before, after in zip(self._before[:2], self._now()[:2], strict=True)
            ]
            others = zip(chain(*self._before[2]), chain(*self._now()[2]), strict=True)
            self._moves.append((*changed, any(not th.equal(*pair) for pair in others)))


@pytest.mark.parametrize("fused", [False, True])
def test_steps_on_weights_and_codes_take_turns(fused: bool) -> None:
    steps = Steps()
    agent = cotasp_agent(tagged_sequence(), interventions=[steps], fused=fused)
    agent.learn(115)
    turns = [(True, False, False)] * 6 + [(False, True, False)] * 3
    first, second = steps._moves[:40], steps._moves[40:]
    # The last step of a phase is made when its end is known; the count begins anew in the next one
    assert first == (turns * 5)[:40] and second == (turns * 5)[: len(second)] and len(second) == 35


def test_codes_learn_with_the_actors_learning_rate() -> None:
    agent = cotasp_agent(tagged_sequence(), weight_steps=1, code_steps=1, learning_rate=0.01)
    agent.learn(21)
    part = part_of(agent)
    (start,) = copy.deepcopy(part._codes)
    agent.learn(1, reset_num_timesteps=False)
    moved = th.cat([(new - old).abs() for new, old in zip(part._codes[0], start, strict=True)])
    # The first step of Adam is as long as the learning rate
    inside = th.cat([(code > 0) & (code < 1) for code in start])
    assert moved[inside].max() == pytest.approx(0.01, rel=1e-3) and not moved[~inside].any()


def test_the_warm_up_is_played_by_earlier_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = cotasp_agent(tagged_sequence(["red", "blue", "green"], cycles=1), phase_learning_starts=20)
    part, played = part_of(agent), []
    predict = agent.policy.predict

    def recording(*args: Any, **kwargs: Any) -> Any:
        masks = [gate.mask.flatten() > 0 for gate in part._gates]
        codes = [[code > 0 for code in each] for each in part._codes]
        if agent.phase.index and agent.phase_steps < 20:
            played.append((agent.phase.index, [all(map(th.equal, masks, each)) for each in codes].index(True)))
        return predict(*args, **kwargs)

    monkeypatch.setattr(agent.policy, "predict", recording)
    agent.learn(145)
    assert [index for index, _ in played] == [1] * 20 + [2] * 20
    assert {number for index, number in played if index == 1} == {0}
    assert {number for index, number in played if index == 2} == {0, 1}


def test_a_new_task_is_distilled_to_act_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    kl: list[float] = []
    distill = CoTASP._distill

    def divergence(agent: Any, states: th.Tensor) -> float:
        with th.no_grad():
            mean, log_std, _ = agent.actor.get_action_dist_params(states)
        return float((mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).mean() / 2)

    def recording(part: CoTASP, states: th.Tensor) -> None:
        assert states.shape == (60, 4)
        kl.append(divergence(part.agent, states))
        distill(part, states)
        kl.append(divergence(part.agent, states))

    monkeypatch.setattr(CoTASP, "_distill", recording)
    ends = Ends()
    agent = cotasp_agent(
        tagged_sequence(cycles=1), interventions=[ends], distill_steps=100, policy_kwargs={"net_arch": [64, 64]}
    )
    agent.learn(60)
    assert kl[1] < 0.5 * kl[0] and len(kl) == 2
    assert not agent.actor.optimizer.state and agent._n_updates == 40
    for own, other in zip(distribution(agent, "red"), ends._ends[0][1], strict=True):
        np.testing.assert_array_equal(own, other)


def test_distillation_is_in_states_of_the_last_phase(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Also after loading, and where D keeps those of all phases. Observations begin with the number of their task."""
    seen: list[th.Tensor] = []
    monkeypatch.setattr(CoTASP, "_distill", lambda _, states: seen.append(states))
    agent = cotasp_agent(tagged_sequence(["red", "blue"], cycles=1), clear_replay_buffer=False)
    agent.learn(120)
    assert [states[:, 0].unique().tolist() for states in seen] == [[1.0]]
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded, without = (CoTASPSAC.load(tmp_path / "model", env=tagged_sequence(["green"])) for _ in range(2))
    loaded.load_replay_buffer(tmp_path / "buffer")
    for each in (agent, loaded):
        each.set_env(tagged_sequence(["green"]))
        each.learn(1, reset_num_timesteps=False)
    assert [states[:, 0].unique().tolist() for states in seen[1:]] == [[2.0], [2.0]]
    np.testing.assert_array_equal(seen[1], seen[2])
    with pytest.warns(UserWarning, match="CoTASP cannot distil: it has no states of the phase before"):
        without.learn(1, reset_num_timesteps=False)
    assert len(seen) == 3


def test_numbers_of_tasks_and_what_is_used() -> None:
    for revisit, n_codes in (("reuse", 2), ("new", 4)):
        agent = cotasp_agent(tagged_sequence(cycles=2), revisit=revisit)
        agent.learn(240)
        part = part_of(agent)
        assert len(part._codes) == n_codes and part._finished == list(range(n_codes))
        assert list(part.masks) == ["red", "blue"]
        for task in part.masks:
            assert all((mask <= part.used[name]).all() for name, mask in part.masks[task].items())


def test_every_task_starts_with_critics_of_its_own() -> None:
    for name in ("reset_optimizers", "reset_critics", "reset_ent_coef"):
        assert inspect.signature(CoTASPSAC).parameters[name].default is True
        assert inspect.signature(ContinualSAC).parameters[name].default is False
    agent = cotasp_agent(tagged_sequence(), ent_coef="auto_0.5", distill_steps=0)
    agent.learn(59)
    before = parameters(agent)
    agent.learn(2, reset_num_timesteps=False)
    assert {"critic.qf0.0.weight", "critic_target.qf1.0.bias", "log_ent_coef"} <= set(differing(before, parameters(agent)))
    assert agent.log_ent_coef.exp().item() == pytest.approx(0.5)
    assert not cotasp_agent(tagged_sequence(), reset_critics=False).reset_critics


def test_an_evaluation_plays_tasks_with_their_units_and_goes_back() -> None:
    seen: list[tuple[str, list[th.Tensor]]] = []

    class Heard(Intervention):
        def on_task(self, task: str) -> None:
            seen.append((task, [gate.mask.flatten() > 0 for gate in part_of(self.agent)._gates]))

    agent = cotasp_agent(tagged_sequence(), interventions=[Heard()], code_steps=0)
    agent.learn(70, SequenceEvaluation(n_eval_episodes=1, progress_bar=False))
    (red,), (blue,) = ([list(part_of(agent).masks[task].values())] for task in ("red", "blue"))
    assert [task for task, _ in seen] == ["red", "red", "blue", "red"]
    assert all(all(map(th.equal, masks, red)) for task, masks in seen if task == "red")
    unseen = dict(seen)["blue"]  # by its name and the dictionary of then
    assert len(unseen) == len(blue) and not all(map(th.equal, unseen, red))


@pytest.mark.parametrize("steps", [35, 90, 150])
def test_a_saved_run_goes_on_with_the_same_state(steps: int, tmp_path: Any) -> None:
    agent = cotasp_agent(tagged_sequence(), code_steps=4, weight_steps=2)
    agent.learn(steps)
    agent.save(tmp_path / "model")
    agent.save_replay_buffer(tmp_path / "buffer")
    loaded = CoTASPSAC.load(tmp_path / "model", env=tagged_sequence())
    loaded.load_replay_buffer(tmp_path / "buffer")
    again = copy.deepcopy(agent)
    for other in (loaded, again):
        for task in ("red", "blue"):
            for one, two in zip(distribution(other, task), distribution(agent, task), strict=True):
                np.testing.assert_array_equal(one, two)
        assert (
            sum(isinstance(hook, UnitGate) for module in other.actor.modules() for hook in module._forward_hooks.values()) == 2
        )
        own, saved = part_of(agent).state_dict(), part_of(other).state_dict()
        assert str(own) == str(saved) and own["optimizer"]["state"]
    with th.random.fork_rng():
        loaded.learn(20, reset_num_timesteps=False)
    assert len(part_of(loaded)._codes) == (2 if steps > 60 else 1)


def test_a_loaded_agent_that_is_not_told_plays_its_last_task(tmp_path: Any) -> None:
    agent = cotasp_agent(tagged_sequence())
    agent.learn(90)
    agent.save(tmp_path / "model")
    loaded = CoTASPSAC.load(tmp_path / "model")
    with pytest.warns(UserWarning, match=r"acts as on its last one, 'blue', until set_task\(task\)"):
        actions = loaded.predict(OBSERVATIONS, deterministic=True)[0]
    agent.set_task("blue")
    np.testing.assert_array_equal(actions, agent.predict(OBSERVATIONS, deterministic=True)[0])
    with pytest.raises(ValueError, match=r"no task 'rde'; did you mean red\?"):
        loaded.set_task("rde")


def test_embeddings_of_ones_own() -> None:
    vectors = {task: np.random.default_rng(i).normal(size=60).tolist() for i, task in enumerate(("red", "blue"))}
    agent = cotasp_agent(tagged_sequence(), task_embeddings=vectors, lasso_weight=1e-4)
    agent.learn(70)
    assert part_of(agent)._dictionaries[0].atoms.shape == (16, 60)
    with pytest.raises(ValueError, match=r"task_embeddings has no 'blue'"):
        cotasp_agent(tagged_sequence(), task_embeddings={"red": [1.0]}).learn(1)


def test_another_length_of_embeddings_cannot_continue(tmp_path: Any) -> None:
    agent = cotasp_agent(tagged_sequence())
    agent.learn(30)
    agent.save(tmp_path / "model")
    with pytest.raises(ValueError, match="vectors have 2 numbers, those that the saved dictionaries have learned from 384"):
        CoTASPSAC.load(tmp_path / "model", task_embeddings={"red": [1, 0], "blue": [0, 1]})


def cart_pole(gravity: float, render_mode: str | None = None) -> gym.Env:
    env = gym.make("CartPole-v1", render_mode=render_mode)
    env.unwrapped.gravity = gravity  # type: ignore[attr-defined]
    return env


def test_discrete_actions() -> None:
    makers = {"earth": partial(cart_pole, 9.8), "moon": partial(cart_pole, 1.6)}
    env = TaskSequence(makers, steps_per_task=60, mastery_threshold=None)
    agent = tiny(CoTASPDiscreteSAC, env, weight_steps=3, code_steps=2, distill_steps=3, policy_kwargs=copy.deepcopy(WIDE))
    agent.learn(90)
    observations, logits = th.as_tensor(OBSERVATIONS), {}
    for name in ("before", "after"):
        for task in ("earth", "moon"):
            agent.set_task(task)
            logits[name, task] = agent.actor.logits(observations).detach()
        agent.learn(25, reset_num_timesteps=False)
    assert th.equal(logits["before", "earth"], logits["after", "earth"])
    assert not th.equal(logits["before", "moon"], logits["after", "moon"])


def test_convolutions() -> None:
    makers = {name: partial(ImageTask, column) for name, column in (("left", 3), ("right", 30))}
    env = TaskSequence(makers, steps_per_task=15, mastery_threshold=None)
    kwargs = {"features_extractor_kwargs": {"features_dim": 16}, "net_arch": [8]}
    agent = CoTASPSAC("CnnPolicy", env, buffer_size=50, batch_size=4, learning_starts=5, weight_steps=2, code_steps=1,
                      distill_steps=2, policy_kwargs=kwargs, seed=0, device="cpu")  # fmt: skip
    agent.learn(20)
    assert len(part_of(agent)._gates) == 5
    images = th.randint(0, 255, (3, 1, 36, 36), dtype=th.uint8)
    seen = []
    for _ in range(2):
        agent.set_task("left")
        seen.append(agent.policy.predict(images.numpy(), deterministic=True)[0])
        agent.learn(10, reset_num_timesteps=False)
    np.testing.assert_array_equal(seen[0], seen[1])


def test_bad_options_and_combinations() -> None:
    for name, values in {
        "weight_steps": (0, 1.5, None),
        "code_steps": (-1, "1"),
        "lasso_weight": (-0.1, None, "a"),
        "distill_steps": (-1, 0.5),
        "mask_log_std": ("yes", None),
        "revisit": ("again", None),
        "task_embeddings": ([], {}, {"red": []}, {"red": [0, 0]}, {"red": [1], "blue": [1, 2]}, {"red": ["a"]}, {"red": 1}),
    }.items():
        for value in values:
            with pytest.raises(ValueError, match=name):
                cotasp_agent("Pendulum-v1", **{name: value})
    sequence = tagged_sequence()
    with pytest.raises(ValueError, match=r"lasso_weight=50 leaves the task 'red' none of the 16 units of 'actor.latent_pi.0'"):
        cotasp_agent(sequence, lasso_weight=50).learn(1)
    with pytest.raises(ValueError, match="Sigmoid of 0 is not 0"):
        cotasp_agent(sequence, policy_kwargs={**WIDE, "activation_fn": nn.Sigmoid})
    with pytest.raises(ValueError, match="no hidden layer"):
        cotasp_agent(sequence, policy_kwargs={"net_arch": {"pi": [], "qf": [8]}})
    with pytest.raises(ValueError, match="ContinualBackprop changes them, too"):
        cotasp_agent(sequence, interventions=[ContinualBackprop()])
    with pytest.raises(ValueError, match="PackNet changes them, too"):
        cotasp_agent(sequence, interventions=[PackNet()])
    with pytest.raises(ValueError, match="best_return_exploration: the policies of earlier tasks are copies"):
        cotasp_agent(sequence, interventions=[ClonEx(clone_coef=0, best_return_exploration=True)])
    with pytest.raises(ValueError, match="use_sde"):
        cotasp_agent(sequence, use_sde=True)
    with pytest.raises(ValueError, match="needs a replay buffer"):
        ContinualPPO("MlpPolicy", "Pendulum-v1", interventions=[CoTASP()])
    with pytest.raises(ValueError, match="normalized in between"):

        class WithNorm(Intervention):
            def attach(self, agent: Any) -> None:
                super().attach(agent)
                agent.policy.actor.latent_pi.insert(1, nn.LayerNorm(16))

        tiny(ContinualSAC, sequence, policy_kwargs=copy.deepcopy(WIDE), interventions=[WithNorm(), CoTASP()])


def test_a_task_that_no_unit_could_play_is_found_before_training() -> None:
    kwargs: dict[str, Any] = {"policy_kwargs": {"net_arch": [1]}}
    agent = tiny(CoTASPSAC, tagged_sequence(), task_embeddings={"red": [1, 0], "blue": [0, 1]}, **kwargs)
    atom = agent.all_interventions.find(CoTASP)._dictionaries[0].atoms[0].tolist()
    opposite = {"red": atom, "blue": [-number for number in atom]}
    with pytest.raises(ValueError, match="leaves the task 'blue' none of the 1 units"):
        tiny(CoTASPSAC, tagged_sequence(), task_embeddings=opposite, **kwargs).learn(1)
