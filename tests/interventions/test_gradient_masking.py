"""Skill neurons and masks, against a computation that takes one step and one neuron at a time."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import (
    ImageTask,
    RecordingLogger,
    Spy,
    TaggedTask,
    differing,
    parameters,
    random_states,
    tagged_sequence,
    tiny,
)
from torch import nn

from sb3_nbsp import NBSPSAC, ContinualSAC
from sb3_nbsp.interventions import GradientMasking
from sb3_nbsp.interventions.base import own_seed
from sb3_nbsp.tasks import TaskSequence

# A step that is masked: (environment's row within the phase, environment, goal metric)
Steps = list[tuple[int, int, float]]


@pytest.fixture(autouse=True)
def forget_what_was_played() -> Iterator[None]:
    TaggedTask.played.clear()
    yield


def on_training_steps(**options: Any) -> GradientMasking:
    return GradientMasking(**{"identification_data": "training", **options})


def masked(env: Any, spy: Spy | None = None, agent: dict[str, Any] | None = None, **options: Any) -> Any:
    masking = on_training_steps(**options)
    return tiny(ContinualSAC, env, interventions=[masking] if spy is None else [spy, masking], **(agent or {}))


def masking_of(agent: Any) -> GradientMasking:
    (masking,) = (each for each in agent.interventions if isinstance(each, GradientMasking))
    return masking


# One step at a time


def slow_metric(transitions: list[Any], name: str, n_steps: int, limit: int = 10**9) -> Steps:
    """Goal metric of the last steps of a phase, from its list of transitions."""
    n_envs = len(transitions[0][0])
    rows = min(-(-n_steps // n_envs), len(transitions), limit)
    steps: Steps = []
    for env in range(n_envs):
        episode: list[int] = []
        for row, (_, dones, _) in enumerate(transitions):
            episode.append(row)
            if name in ("step_success", "custom"):
                reward, _, infos = transitions[row]
                q = infos[env]["success"] if name == "step_success" else float(reward[env]) ** 2
                steps.append((row, env, q))
            elif dones[env]:
                if name == "episode_return":
                    q = sum(float(transitions[i][0][env]) for i in episode)
                else:
                    q = max(transitions[i][2][env]["success"] for i in episode)
                steps += [(i, env, q) for i in episode]
            if dones[env]:
                episode = []
    return sorted(step for step in steps if step[0] >= len(transitions) - rows)


def slow_scores(modules: list[nn.Module], forward: Any, inputs: list[Any], q: list[float]) -> tuple[list[float], list[bool]]:
    """Scores of the neurons behind some activation modules (equations 1 to 4), and which of them are dead."""
    activations: list[list[float]] = []
    for each in inputs:
        row: list[float] = []
        handles = [
            module.register_forward_hook(lambda _m, _i, out, row=row: row.extend(value.mean().item() for value in out[0]))
            for module in modules
        ]
        with th.no_grad():
            forward(each)
        for handle in handles:
            handle.remove()
        activations.append(row)
    mean_q = sum(q) / len(q)
    scores, dead = [], []
    for neuron in range(len(activations[0])):
        own = [row[neuron] for row in activations]
        mean = sum(own) / len(own)
        constant = all(value == own[0] for value in own)
        over = 0
        for value, metric in zip(own, q, strict=True):
            is_above = value > mean and not constant
            over += is_above == (metric > mean_q)
        r_over = over / len(q)
        scores.append(max(r_over, 1 - r_over))
        dead.append(constant)
    return scores, dead


def activation_modules(*parts: nn.Module) -> list[nn.Module]:
    return [module for part in parts for module in part.modules() if isinstance(module, (nn.ReLU, nn.Tanh))]


def slow_networks(policy: Any) -> dict[str, tuple[list[nn.Module], Any]]:
    """By network: its activation modules, and what runs it on (observation, action)."""
    networks: dict[str, tuple[list[nn.Module], Any]] = {}
    actor, critic = policy.actor, policy.critic
    modules = activation_modules(actor.features_extractor, actor.latent_pi)
    networks["actor"] = modules, lambda step: actor.latent_pi(actor.extract_features(step[0], actor.features_extractor))
    for i, head in enumerate(critic.q_networks):

        def forward(step: Any, head: Any = head) -> Any:
            return head(th.cat([critic.extract_features(step[0], critic.features_extractor), step[1]], dim=1))

        networks[f"qf{i}"] = activation_modules(critic.features_extractor, head), forward
    return networks


def slow_selection(scores: list[float], dead: list[bool], proportion: float, exclude_dead: bool) -> list[bool]:
    """Equation 5: the best first, the earlier of two equals, and never a dead one."""
    number = round(proportion * len(scores))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    if exclude_dead:
        order = [i for i in order if not dead[i]]
    return [i in order[:number] for i in range(len(scores))]


def check_scores(masking: GradientMasking, policy: Any, task: str, inputs: list[Any], q: list[float]) -> None:
    """Scores, skill neurons and the mask of the phase just ended, from a copy of the policy as it was then."""
    expected_masks: dict[int, float] = {}
    n_skills = n_selectable = 0
    for name, (modules, forward) in slow_networks(policy).items():
        scores, dead = slow_scores(modules, forward, inputs, q)
        if masking.exclude_dead:
            scores = [0.5 if is_dead else score for score, is_dead in zip(scores, dead, strict=True)]
        np.testing.assert_allclose(masking.scores[task][name].numpy(), scores, atol=1e-12, err_msg=name)
        selected = slow_selection(scores, dead, masking.skill_proportion, masking.exclude_dead)
        assert masking.skill_neurons[task][name].tolist() == selected
        n_skills += sum(selected)
        n_selectable += round(masking.skill_proportion * len(scores))
        for i, (score, skill) in enumerate(zip(scores, selected, strict=True)):
            hard = masking.mask_type == "hard"
            expected_masks[len(expected_masks)] = (0.0 if hard else masking.mask_alpha * (1 - score)) if skill else 1.0
            assert not (skill and masking.exclude_dead and dead[i])
    assert 0 < n_skills <= n_selectable
    if len(masking.skill_neurons) == 1:
        # In the order of the networks and their layers (convolutional extractors apart, those may be shared)
        flat = th.cat([masking.masks[name] for name in masking.masks]).tolist()
        if not any("features_extractor" in name for name in masking.masks):
            assert flat == pytest.approx(list(expected_masks.values()), abs=1e-12)


def inputs_of(spy: Spy, phase: int, steps: Steps, normalize: bool = False) -> list[Any]:
    """Observation and action of each step, as a batch of one."""
    end = spy.ends[phase]
    buffer, statistics = end["buffer"], end["normalizer"]
    n_rows = len(spy.transitions[phase])
    inputs = []
    for row, env, _ in steps:
        index = (buffer.pos - (n_rows - row)) % buffer.buffer_size
        observation = buffer.observations[index, env]
        if normalize:
            mean, var = statistics[0].mean, statistics[0].var
            observation = np.clip((observation - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
        inputs.append((th.tensor(observation[None]), th.tensor(buffer.actions[index, env][None])))
    return inputs


def two_sequences(**kwargs: Any) -> DummyVecEnv:
    """Two environments whose episodes end at different times."""
    return DummyVecEnv([lambda: tagged_sequence(horizon=7, **kwargs), lambda: tagged_sequence(horizon=11, **kwargs)])


def squared_reward(reward: float, done: bool, info: dict[str, Any]) -> float:
    return reward**2


CASES: dict[str, tuple[Any, str, dict[str, Any], dict[str, Any]]] = {
    # Name: environment, metric that is expected, options of the masking, options of the agent
    "success of the step": (tagged_sequence, "step_success", {"identification_steps": 25}, {}),
    "all steps of the phase": (tagged_sequence, "step_success", {}, {}),
    "success of the episode": (
        lambda: tagged_sequence(success=3),
        "episode_success",
        {"goal_metric": "episode_success", "identification_steps": 41},
        {},
    ),
    "return of the episode": (tagged_sequence, "episode_return", {"goal_metric": "episode_return"}, {}),
    "no success: return": (lambda: tagged_sequence(success=None), "episode_return", {"identification_steps": 33}, {}),
    "custom metric": (tagged_sequence, "custom", {"goal_metric": squared_reward}, {}),
    "two environments": (two_sequences, "step_success", {"identification_steps": 31}, {}),
    "two environments, return": (
        two_sequences,
        "episode_return",
        {"identification_steps": 60, "goal_metric": "episode_return"},
        {},
    ),
    "small buffer": (tagged_sequence, "step_success", {"identification_steps": 25}, {"buffer_size": 37}),
    "window larger than the buffer": (tagged_sequence, "step_success", {}, {"buffer_size": 37}),
    "a buffer that keeps earlier phases": (tagged_sequence, "step_success", {}, {"clear_replay_buffer": False}),
    "literal formula": (tagged_sequence, "step_success", {"exclude_dead": False}, {}),
    "hard": (tagged_sequence, "step_success", {"mask_type": "hard"}, {}),
    "alpha, proportion": (tagged_sequence, "step_success", {"mask_alpha": 0.7, "skill_proportion": 0.5}, {}),
    "tanh, three critics": (
        tagged_sequence,
        "step_success",
        {},
        {"policy_kwargs": {"net_arch": {"pi": [6], "qf": [5, 4]}, "activation_fn": nn.Tanh, "n_critics": 3}},
    ),
    "gSDE": (tagged_sequence, "step_success", {}, {"use_sde": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_and_masks_one_step_at_a_time(name: str) -> None:
    make_env, metric, options, agent_options = CASES[name]
    spy = Spy()
    agent = masked(make_env(), spy, agent_options, **options)
    learned = 0
    for phase, task in enumerate(("red", "blue")):
        while len(spy.ends) == phase:
            agent.learn(1, reset_num_timesteps=False)
        steps = slow_metric(spy.transitions[phase], metric, options.get("identification_steps", 10_000))
        limit = agent_options.get("buffer_size", 10**9)
        steps = [step for step in steps if step[0] >= len(spy.transitions[phase]) - limit]
        q = [step[2] for step in steps]
        assert len(set(q)) > 1
        check_scores(masking_of(agent), spy.ends[phase]["policy"], task, inputs_of(spy, phase, steps), q)
        learned = agent._n_updates
    assert learned > 50


def test_normalized_observations_are_scored() -> None:
    env = VecNormalize(DummyVecEnv([lambda: tagged_sequence(steps_per_task=60)]))
    spy = Spy()
    agent = masked(env, spy, goal_metric="episode_return", identification_steps=45)
    agent.learn(60)
    steps = slow_metric(spy.transitions[0], "episode_return", 45)  # of the rewards as the environment gave them
    played = [reward for _, _, reward, _, _ in TaggedTask.played[1.0]]
    q = [step[2] for step in steps]
    assert q[0] == pytest.approx(sum(played[10:20]), rel=1e-5)
    policy = spy.ends[0]["policy"]
    check_scores(masking_of(agent), policy, "red", inputs_of(spy, 0, steps, normalize=True), q)
    with pytest.raises(AssertionError):  # and that makes a difference
        check_scores(masking_of(agent), policy, "red", inputs_of(spy, 0, steps, normalize=False), q)


@pytest.mark.parametrize("shared", [False, True])
def test_images(shared: bool) -> None:
    """The neurons of a convolution are its channels; an extractor that networks share gets the smaller mask."""
    makers = {"left": lambda render_mode=None: ImageTask(2), "right": lambda render_mode=None: ImageTask(30)}
    env = TaskSequence(makers, steps_per_task=20, mastery_threshold=None)
    spy = Spy()
    extractor = {"features_extractor_kwargs": {"features_dim": 6}, "share_features_extractor": shared}
    options = {
        "policy": "CnnPolicy",
        "policy_kwargs": {"net_arch": [30], **extractor},
        "batch_size": 4,
        "buffer_size": 60,
        "learning_starts": 15,
        "phase_learning_starts": 3,
    }
    agent = masked(env, spy, options)
    agent.learn(20)
    masking, policy = masking_of(agent), spy.ends[0]["policy"]
    steps = slow_metric(spy.transitions[0], "step_success", 10_000)
    check_scores(masking, policy, "left", inputs_of(spy, 0, steps), [step[2] for step in steps])
    names = ["cnn.0", "cnn.2", "cnn.4", "linear.0"]
    expected = {f"{net}.features_extractor.{name}" for net in ("actor", "critic") for name in names}
    assert set(masking.masks) == expected | {"actor.latent_pi.0", "critic.qf0.0", "critic.qf1.0"}
    assert [len(masking.masks[f"critic.features_extractor.{name}"]) for name in names] == [32, 64, 64, 6]
    # The two critics' own opinions on their common extractor
    sizes = [32, 64, 64, 6]
    opinions = []
    for critic in ("qf0", "qf1"):
        score, skill = masking.scores["left"][critic][: sum(sizes)], masking.skill_neurons["left"][critic][: sum(sizes)]
        opinions.append(th.where(skill, 0.2 * (1 - score), 1.0).split(sizes))
    assert not th.equal(th.cat(opinions[0]), th.cat(opinions[1]))
    for index, name in enumerate(names):
        smaller = th.minimum(opinions[0][index], opinions[1][index])
        th.testing.assert_close(masking.masks[f"critic.features_extractor.{name}"], smaller, atol=1e-12, rtol=0)
    agent.learn(10, reset_num_timesteps=False)
    assert agent._n_updates > 5
    # The step that a shared extractor takes obeys the masks of all networks that use it
    optimizer_parameters = {id(p): p for group in agent.actor.optimizer.param_groups for p in group["params"]}
    first = agent.actor.features_extractor.cnn[0].weight
    assert id(first) in optimizer_parameters
    (applied,) = (mask for parameter, mask in masking._steps["actor"].masked if parameter is first)
    own = masking.masks["actor.features_extractor.cnn.0"]
    common = th.minimum(own, masking.masks["critic.features_extractor.cnn.0"])
    th.testing.assert_close(applied, common if shared else own)


def test_dead_neurons_are_recorded_and_never_selected() -> None:
    spy, logger = Spy(), RecordingLogger()
    agent = masked(tagged_sequence(), spy, {"learning_rate": 0.0}, skill_proportion=1.0)
    agent.set_logger(logger)
    with th.no_grad():
        agent.actor.latent_pi[0].bias[3] = -1000.0
        agent.critic.q_networks[1][2].bias[5] = -1000.0
    agent.learn(60)
    masking = masking_of(agent)
    skill, score = masking.skill_neurons["red"], masking.scores["red"]
    assert not skill["actor"][3] and not skill["qf1"][8 + 5]
    assert score["actor"][3] == score["qf1"][8 + 5] == 0.5
    assert masking.masks["actor.latent_pi.0"][3] == 1 == masking.masks["critic.qf1.2"][5]
    for name in ("actor", "qf0", "qf1"):
        (dead,) = logger.values(f"nbsp/{name}_dead_neurons")
        (skills,) = logger.values(f"nbsp/{name}_skill_neurons")
        assert dead == 16 - skills == 16 - int(skill[name].sum())
        assert dead >= (name != "qf0")
        (highest,), (threshold,) = logger.values(f"nbsp/{name}_max_score"), logger.values(f"nbsp/{name}_threshold")
        assert highest == score[name].max() and threshold == score[name][skill[name]].min()


def test_histograms_of_the_best_skill_neurons(tmp_path: Path) -> None:
    agent = masked(tagged_sequence(), Spy(), skill_proportion=0.5)
    agent.learn(60)
    masking = masking_of(agent)
    for network in masking.networks:
        histograms = masking.histograms["red"][network.name]
        scores, skills = masking.scores["red"][network.name], masking.skill_neurons["red"][network.name]
        assert [histogram["score"] for histogram in histograms] == scores[skills].sort(descending=True).values[:4].tolist()
        for histogram in histograms:
            assert skills[histogram["neuron"]] and histogram["score"] == scores[histogram["neuron"]]
            assert sum(histogram["success"]) + sum(histogram["failure"]) == 60
            assert sum(histogram["success"]) > 0
    agent.save(tmp_path / "agent")
    assert masking_of(type(agent).load(tmp_path / "agent")).histograms == masking.histograms


@pytest.mark.parametrize("identification", ["weight", "random"])
def test_no_histograms_without_activations(identification: str) -> None:
    agent = masked(tagged_sequence(), identification=identification)
    agent.learn(60)
    assert masking_of(agent).histograms["red"] == {"actor": [], "qf0": [], "qf1": []}


# Fresh steps


@pytest.mark.parametrize("normalized", [False, True])
def test_fresh_steps(normalized: bool) -> None:
    """T steps of the stochastic policy in the finished phase's task, and nothing else is touched."""
    n_steps = 37
    env: Any = DummyVecEnv([lambda: tagged_sequence(horizon=10)])
    env = VecNormalize(env) if normalized else env
    before, after = Spy(), Spy()
    masking = GradientMasking(identification_data="fresh", identification_steps=n_steps)
    agent = tiny(ContinualSAC, env, interventions=[before, masking, after])
    agent.learn(100)
    # Phase 0: 60 steps of training on red, then 37 fresh ones on red; meanwhile 40 of training on blue
    assert {tag: len(steps) for tag, steps in TaggedTask.played.items()} == {1.0: 60 + n_steps, 2.0: 40}
    fresh = TaggedTask.played[1.0][60:]
    assert [step[4] for step in fresh] == [i % 10 == 9 for i in range(n_steps)]
    end = before.ends[0]
    policy = end["policy"]

    def seen(observation: np.ndarray) -> np.ndarray:
        if not normalized:
            return observation
        statistics = end["normalizer"][0]
        return np.clip((observation - statistics.mean) / np.sqrt(statistics.var + 1e-8), -10, 10).astype(np.float32)

    # They are what the policy does with noise of the intervention's own seed
    with th.random.fork_rng():
        th.manual_seed(own_seed(agent, end["phase"], 3))
        for observation, action, _, _, _ in fresh:
            np.testing.assert_allclose(policy.predict(seen(observation)[None])[0][0], action, atol=1e-6)
    inputs = [
        (th.tensor(seen(observation)[None]), th.tensor(policy.scale_action(action)[None])) for observation, action, *_ in fresh
    ]
    check_scores(masking, policy, "red", inputs, [success for *_, success, _ in fresh])
    # The agent, its environment and the global random streams are as they were
    first, last = before.ends[0], after.ends[0]
    assert first["random"] == last["random"]
    assert differing(first["policy"].state_dict(), last["policy"].state_dict()) == []
    for name in ("pos", "full"):
        assert getattr(first["buffer"], name) == getattr(last["buffer"], name)
    np.testing.assert_array_equal(first["buffer"].observations, last["buffer"].observations)
    if normalized:
        np.testing.assert_array_equal(first["normalizer"][0].mean, last["normalizer"][0].mean)
        assert first["normalizer"][0].count == last["normalizer"][0].count
    assert (first["num_timesteps"], first["n_updates"]) == (last["num_timesteps"], last["n_updates"]) == (60, 39)


@pytest.mark.parametrize("metric", ["episode_success", "episode_return"])
def test_fresh_steps_of_an_unfinished_episode_are_left_out(metric: str) -> None:
    spy = Spy()
    options = {"identification_data": "fresh", "identification_steps": 28, "goal_metric": metric, "skill_proportion": 0.5}
    agent = masked(tagged_sequence(success=1), spy, **options)  # the first episode of an environment has no success
    agent.learn(60)
    fresh = TaggedTask.played[1.0][60:]
    assert len(fresh) == 28
    q = []
    for start in (0, 10):
        episode = fresh[start : start + 10]
        value = (
            sum(step[2] for step in episode) if metric == "episode_return" else max(float(step[3] or 0) for step in episode)
        )
        q += [value] * 10
    policy = spy.ends[0]["policy"]
    inputs = [
        (th.tensor(observation[None]), th.tensor(policy.scale_action(action)[None])) for observation, action, *_ in fresh[:20]
    ]
    assert metric == "episode_return" or q == [0] * 10 + [1] * 10
    check_scores(masking_of(agent), policy, "red", inputs, q)


def test_training_with_fresh_identification_is_undisturbed() -> None:
    """Without masks (alpha 1, hence factors of at most 0.5, would show): the random streams of training are SAC's."""
    states = []
    for interventions in ([], [GradientMasking(identification_data="fresh", identification_steps=30)]):
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions)
        agent.learn(80)  # up to the end of the warm-up, before the first masked step
        states.append((random_states(), parameters(agent)))
    assert states[0][0] == states[1][0]
    assert differing(states[0][1], states[1][1]) == []


@pytest.mark.parametrize(("is_wrapped", "same_as"), [(False, "fresh"), (True, "training")])
def test_auto_takes_fresh_steps_where_it_can(is_wrapped: bool, same_as: str) -> None:
    """Wrappers around the whole sequence are not part of its tasks, whose own environments then have other spaces."""
    scores = []
    for data in ("auto", same_as):
        env = tagged_sequence()
        agent = masked(FlattenedTwice(env) if is_wrapped else env, identification_data=data, identification_steps=40)
        agent.learn(60)
        scores.append(masking_of(agent).scores["red"]["actor"])
    assert th.equal(*scores) and len(scores[0].unique()) > 3


class FlattenedTwice(gym.ObservationWrapper):
    """Every observation twice."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return np.concatenate([observation, observation])


def test_auto_without_task_makers_takes_training_steps() -> None:
    scores = []
    for data in ("auto", "training"):
        agent = masked(Announces(tagged_sequence()), identification_data=data, identification_steps=40)
        agent.learn(60)
        scores.append(masking_of(agent).scores["red"]["actor"])
    assert th.equal(*scores)


class Announces(gym.Env):
    """Passes on what a sequence says of its phases, and nothing else of it."""

    def __init__(self, sequence: TaskSequence) -> None:
        self._sequence = sequence
        self.observation_space, self.action_space = sequence.observation_space, sequence.action_space

    def reset(self, **kwargs: Any) -> Any:
        return self._sequence.reset(**kwargs)

    def step(self, action: np.ndarray) -> Any:
        return self._sequence.step(action)


def test_fresh_steps_need_equal_spaces() -> None:
    env = gym.wrappers.TransformObservation(
        tagged_sequence(), lambda observation: observation[:3], gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    )
    agent = masked(env, identification_data="fresh", identification_steps=10)
    with pytest.raises(ValueError, match="identification_data='training'"):
        agent.learn(100)


def test_fresh_steps_of_a_task_whose_environment_was_taken_away() -> None:
    agent = masked(tagged_sequence(), identification_data="fresh", identification_steps=20)
    agent.learn(30)
    agent.set_env(tagged_sequence(("green", "blue")))  # knows nothing of red
    agent.learn(30, reset_num_timesteps=False)
    assert set(masking_of(agent).scores) == {"red"} and agent.phase.task == "green"


def test_fresh_steps_need_an_environment_that_makes_the_task(tmp_path: Any) -> None:
    agent = masked(tagged_sequence(), identification_data="fresh", identification_steps=20)
    agent.learn(30)
    agent.save(tmp_path / "model")
    loaded = ContinualSAC.load(tmp_path / "model", env=tagged_sequence(("green", "blue")))
    with pytest.warns(UserWarning, match=r"phase 0 \(red\): the environment's task_makers lack the task 'red'"):
        loaded.learn(30, reset_num_timesteps=False)
    assert masking_of(loaded).masks == {} and loaded.phase.task == "green"


def test_fresh_steps_with_two_environments() -> None:
    """As many steps as with one, in one environment."""
    agent = masked(two_sequences(), identification_data="fresh", identification_steps=25)
    agent.learn(150)
    assert agent.phase.index == 1
    # The last episodes of phase 0 end at steps 63 and 66: the other environment is cut off one step after the first
    assert len(TaggedTask.played[1.0]) == 63 + 64 + 25
    assert set(masking_of(agent).scores) == {"red"}


# A window that says nothing


def test_a_constant_metric_falls_back_to_the_return_with_one_warning() -> None:
    logger, masks = RecordingLogger(), []
    for metric, success in (("auto", "never"), ("episode_return", "never"), ("episode_success", "always")):
        agent = masked(tagged_sequence(success=success), goal_metric=metric, mask_accumulation="latest")
        agent.set_logger(logger if metric == "auto" else RecordingLogger())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            agent.learn(10_000)
        ours = [str(each.message) for each in caught if "goal metric" in str(each.message)]
        assert len(ours) == (0 if metric == "episode_return" else 1)
        assert all(("step_success" if metric == "auto" else "episode_success") in message for message in ours)
        masks.append(masking_of(agent).masks)
    assert logger.values("nbsp/goal_metric_is_constant") == [1, 1, 1, 1]
    for other in masks[1:]:
        assert differing(masks[0], other) == []
    assert min(mask.min() for mask in masks[0].values()) < 0.1


def test_a_metric_that_varies_is_recorded_as_such() -> None:
    logger = RecordingLogger()
    agent = masked(tagged_sequence())
    agent.set_logger(logger)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(60)
    assert logger.values("nbsp/goal_metric_is_constant") == [0]


def test_an_empty_window_warns_and_keeps_the_masks() -> None:
    agent = masked(tagged_sequence(("red", "blue"), horizon=20, steps_per_task=40, success=None))
    agent.learn(45)
    masking = masking_of(agent)
    before = copy.deepcopy(masking.masks)
    assert before and set(masking.scores) == {"red"}
    agent.set_env(tagged_sequence(("green", "blue"), horizon=20, success=None))  # in the middle of blue's first episode
    with pytest.warns(UserWarning, match=r"phase 1 \(blue\): there is no complete episode"):
        agent.learn(1, reset_num_timesteps=False)
    assert differing(before, masking.masks) == []
    assert set(masking.scores) == set(masking.skill_neurons) == {"red"}


@pytest.mark.filterwarnings("ignore:The goal metric", "ignore:No skill neurons")
def test_equal_returns_say_nothing_either() -> None:
    """Warned of at every phase: nothing of that phase will be protected."""

    def zero(reward: float, done: bool, info: dict[str, Any]) -> float:
        return 0.0

    class Equal(TaggedTask):
        def step(self, action: np.ndarray) -> Any:
            observation, _, *rest = super().step(action)
            return (observation, 1.0, *rest)

    for metric in ("auto", zero):
        makers = {"red": lambda render_mode=None: Equal(1.0, success="never"), "blue": lambda render_mode=None: Equal(2.0)}
        agent = masked(TaskSequence(makers, steps_per_task=30, mastery_threshold=None), goal_metric=metric)
        with pytest.warns(UserWarning, match=r"phase 0 \(red\): the goal metric is the same at all steps"):
            agent.learn(30)
        masking = masking_of(agent)
        assert masking.masks == masking.scores == masking.skill_neurons == {}
        agent.learn(30, reset_num_timesteps=False)
        assert set(masking.scores) == ({"blue"} if metric == "auto" else set())


# Masks


@pytest.mark.parametrize("accumulation", ["minimum", "latest"])
def test_accumulation(accumulation: str) -> None:
    masking, after = on_training_steps(mask_accumulation=accumulation, skill_proportion=0.4), []  # type: ignore[arg-type]

    class Look(Spy):
        def on_phase_end(self, phase: Any) -> None:
            score, skill = masking.scores[phase.task], masking.skill_neurons[phase.task]
            new = {name: th.where(skill[name], 0.2 * (1 - score[name]), 1.0) for name in score}
            after.append((copy.deepcopy(masking.masks), new))

    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[masking, Look()])
    agent.learn(10_000)
    assert len(after) == 4
    expected = {name: th.ones(16, dtype=th.float64) for name in ("actor", "qf0", "qf1")}
    for masks, new in after:
        for name, so_far in expected.items():
            expected[name] = th.minimum(so_far, new[name]) if accumulation == "minimum" else new[name]
            layers = (
                ("actor.latent_pi.0", "actor.latent_pi.2") if name == "actor" else (f"critic.{name}.0", f"critic.{name}.2")
            )
            th.testing.assert_close(th.cat([masks[layer] for layer in layers]), expected[name], atol=1e-12, rtol=0)
    protected = [int((th.cat([*masks.values()]) < 1).sum()) for masks, _ in after]
    assert protected[0] == 18  # 3 networks × round(0.4 × 16)
    assert protected == sorted(protected) and protected[-1] > 18 if accumulation == "minimum" else protected == [18] * 4


@pytest.mark.parametrize(
    ("networks", "masked_parts"), [("actor", {"actor"}), ("critic", {"critic"}), ("both", {"actor", "critic"})]
)
def test_which_networks_are_masked(networks: str, masked_parts: set[str]) -> None:
    agent = masked(tagged_sequence(), mask_networks=networks)
    agent.learn(60)
    assert {name.split(".")[0] for name in masking_of(agent).masks} == masked_parts
    assert set(masking_of(agent).scores["red"]) == {
        name for name in ("actor", "qf0", "qf1") if ("actor" if name == "actor" else "critic") in masked_parts
    }


HIDDEN = {
    "actor": {"actor.latent_pi.0": "actor.latent_pi.0", "actor.latent_pi.2": "actor.latent_pi.2"},
    "critic": {f"critic.qf{i}.{layer}": f"critic.qf{i}.{layer}" for i in (0, 1) for layer in (0, 2)},
}
# The first update of the second phase: 60 steps, 20 of warm-up, one more
FIRST_MASKED_STEP = 60 + 20 + 1


def first_step(networks: str, **options: Any) -> tuple[Any, dict[str, th.Tensor], dict[str, th.Tensor], dict[str, th.Tensor]]:
    """Masking, then the parameters before and after the first masked step, and after the same step without masks."""
    results = []
    for masking in (on_training_steps(mask_networks=networks, **options), None):  # type: ignore[arg-type]
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=[] if masking is None else [masking], fused=False)
        agent.learn(FIRST_MASKED_STEP - 1)
        before = parameters(agent)
        agent.learn(1, reset_num_timesteps=False)
        results.append((masking, before, parameters(agent)))
    (masking, before, after), (_, plain_before, plain_after) = results
    assert differing(before, plain_before) == []
    return masking, before, after, plain_after


@pytest.mark.parametrize("mask_type", ["soft", "hard"])
@pytest.mark.parametrize("network", ["actor", "critic"])
def test_the_first_masked_step(network: str, mask_type: str) -> None:
    """θ ← θ + mask ⊙ Δ for the incoming weights and biases; output layers move as without masks, bit for bit."""
    masking, before, after, plain = first_step(network, mask_type=mask_type)
    outputs = 0
    for name, old in before.items():
        if not name.startswith(f"{network}."):
            continue
        layer = name.rsplit(".", 1)[0]
        if layer in masking.masks:
            mask = masking.masks[layer].float().view(-1, *[1] * (old.dim() - 1))
            step = plain[name] - old
            assert step.abs().max() > 0
            th.testing.assert_close(after[name], old + mask * step, atol=1e-7, rtol=0)
            free = masking.masks[layer] == 1
            assert th.equal(after[name][free], plain[name][free])
            if mask_type == "hard":
                assert th.equal(after[name][~free], old[~free])
        else:
            assert th.equal(after[name], plain[name]) and not th.equal(after[name], old), name
            outputs += 1
    assert outputs == 4  # weight and bias of: mu and log_std, or both critics' last layers
    assert any((masking.masks[layer] < 1).any() for layer in masking.masks)


def test_hard_masks_hold_the_skill_neurons_still_for_the_rest_of_their_life() -> None:
    spy = Spy()
    agent = masked(tagged_sequence(), spy, {"gradient_steps": 2}, mask_type="hard")
    agent.learn(60)
    at_end, masks = parameters(agent), copy.deepcopy(masking_of(agent).masks)
    agent.learn(200, reset_num_timesteps=False)
    now = parameters(agent)
    assert len(spy.ends) == 4 and agent._n_updates > 200
    still = 0
    for layer, mask in masks.items():
        for kind in ("weight", "bias"):
            name = f"{layer}.{kind}"
            assert th.equal(now[name][mask == 0], at_end[name][mask == 0])
            still += int((mask == 0).sum())
    assert still == 2 * 3 * 3  # 3 networks × round(0.2 × 16), weights and biases
    for name in ("actor.mu.weight", "actor.log_std.bias", "critic.qf0.4.weight", "critic.qf1.4.bias"):
        assert not th.equal(now[name], at_end[name])


def movement(
    parameters_before: dict[str, th.Tensor], parameters_after: dict[str, th.Tensor], masks: Any
) -> tuple[float, float]:
    """Mean movement of the rows that are masked, and of the others."""
    moved: dict[bool, list[th.Tensor]] = {True: [], False: []}
    for layer, mask in masks.items():
        for kind in ("weight", "bias"):
            change = (
                (parameters_after[f"{layer}.{kind}"] - parameters_before[f"{layer}.{kind}"])
                .abs()
                .flatten(1 - (kind == "bias"))
            )
            for is_masked in (True, False):
                moved[is_masked].append(change[(mask < 1) == is_masked].flatten())
    return th.cat(moved[True]).mean().item(), th.cat(moved[False]).mean().item()


def test_masked_neurons_move_less_over_the_next_phase() -> None:
    ends: dict[str, tuple[float, float]] = {}
    masks: Any = None
    for name in ("masked", "plain"):
        interventions = [on_training_steps()] if name == "masked" else []
        agent = tiny(ContinualSAC, tagged_sequence(steps_per_task=100), interventions=interventions)
        agent.learn(100)
        before = parameters(agent)
        masks = copy.deepcopy(interventions[0].masks) if interventions else masks
        agent.learn(99, reset_num_timesteps=False)
        ends[name] = movement(before, parameters(agent), masks)
    assert ends["plain"][0] > 0.3 * ends["plain"][1] > 0.003  # without masks the same rows move like any other
    assert ends["masked"][0] < 0.2 * ends["plain"][0]
    assert ends["masked"][0] < 0.2 * ends["masked"][1]
    assert ends["masked"][1] > 0.5 * ends["plain"][1]


class Gradients(Spy):
    """Keeps the gradients as they are when the optimizer is about to step."""

    def attach(self, agent: Any) -> None:
        super().attach(agent)
        self._gradients: list[tuple[str, dict[str, th.Tensor]]] = []

    @property
    def gradients(self) -> list[tuple[str, dict[str, th.Tensor]]]:
        return self._gradients

    def before_step(self, network: Any) -> None:
        named = self.agent.policy.named_parameters()
        self._gradients.append(
            (network, {n: p.grad.clone() for n, p in named if p.grad is not None and n.startswith(network)})
        )


def test_gradient_target() -> None:
    """mask_target="gradient" multiplies the gradients and leaves the step to Adam."""
    first, last = Gradients(), Gradients()
    masking = on_training_steps(mask_target="gradient")
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[first, masking, last])
    agent.learn(100)
    assert masking._steps == {}
    compared = 0
    n_first_phase = first.ends[0]["n_updates"] * 2
    for index, ((_, raw), (_, given)) in enumerate(zip(first.gradients, last.gradients, strict=True)):
        for name, gradient in raw.items():
            layer = name.rsplit(".", 1)[0]
            if index < n_first_phase or layer not in masking.masks:
                assert th.equal(gradient, given[name])
                continue
            mask = masking.masks[layer].float().view(-1, *[1] * (gradient.dim() - 1))
            th.testing.assert_close(given[name], gradient * mask, atol=0, rtol=1e-6)
            compared += int((gradient[masking.masks[layer] < 1] != 0).any())
    assert len(first.gradients) == 2 * agent._n_updates > n_first_phase and compared > 100


def test_step_target_leaves_the_gradients_alone() -> None:
    first, last = Gradients(), Gradients()
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[first, on_training_steps(), last])
    agent.learn(90)
    assert len(first.gradients) == 2 * agent._n_updates > 80
    for (_, raw), (_, given) in zip(first.gradients, last.gradients, strict=True):
        assert all(th.equal(gradient, given[name]) for name, gradient in raw.items())


@pytest.mark.parametrize("optimizer", [th.optim.SGD, th.optim.AdamW, th.optim.RMSprop, th.optim.Adagrad])
def test_the_step_is_scaled_whatever_the_optimizer(optimizer: type[th.optim.Optimizer]) -> None:
    results = []
    for masking in (on_training_steps(mask_networks="critic"), None):
        policy_kwargs = {"net_arch": [8, 8], "optimizer_class": optimizer}
        interventions = [] if masking is None else [masking]
        agent = tiny(ContinualSAC, tagged_sequence(), interventions=interventions, policy_kwargs=policy_kwargs)
        agent.learn(FIRST_MASKED_STEP - 1)
        before = parameters(agent)
        agent.learn(1, reset_num_timesteps=False)
        results.append((masking, before, parameters(agent)))
    (masking, before, after), (_, _, plain) = results
    assert masking is not None
    for layer, mask in masking.masks.items():
        old, new, free = before[f"{layer}.weight"], after[f"{layer}.weight"], plain[f"{layer}.weight"]
        assert (free - old).abs().max() > 1e-6
        th.testing.assert_close(new - old, mask.float()[:, None] * (free - old), atol=2e-7, rtol=0)


# Other ways to identify


def test_identification_by_weight_needs_no_window() -> None:
    spy = Spy()
    agent = masked(tagged_sequence(success=None), spy, identification="weight", identification_data="fresh")
    agent.learn(60)
    assert len(TaggedTask.played[1.0]) == 60  # no fresh step was needed
    policy, masking = spy.ends[0]["policy"], masking_of(agent)
    for name, modules in (
        ("actor", (policy.actor.latent_pi[0], policy.actor.latent_pi[2])),
        ("qf1", (policy.critic.q_networks[1][0], policy.critic.q_networks[1][2])),
    ):
        magnitudes = [float(row.abs().sum()) / len(row) for module in modules for row in module.weight.detach()]
        order = sorted(range(16), key=lambda i: magnitudes[i])
        expected = [0.5 + 0.5 * order.index(i) / 15 for i in range(16)]
        np.testing.assert_allclose(masking.scores["red"][name], expected)
        assert masking.skill_neurons["red"][name].nonzero().flatten().tolist() == sorted(order[-3:])


def test_identification_by_activation() -> None:
    spy = Spy()
    agent = masked(tagged_sequence(success="never"), spy, identification="activation", identification_steps=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a constant goal metric does not matter here
        agent.learn(60)
    steps = slow_metric(spy.transitions[0], "step_success", 20)
    totals = np.zeros(16)
    modules, forward = slow_networks(spy.ends[0]["policy"])["qf0"]
    for each in inputs_of(spy, 0, steps):
        row: list[float] = []
        handles = [
            module.register_forward_hook(lambda _m, _i, out, row=row: row.extend(out[0].tolist())) for module in modules
        ]
        with th.no_grad():
            forward(each)
        for handle in handles:
            handle.remove()
        totals += np.abs(row)
    best = sorted(np.argsort(-totals, kind="stable")[:3].tolist())
    assert masking_of(agent).skill_neurons["red"]["qf0"].nonzero().flatten().tolist() == best


def test_random_identification_is_random_and_repeatable() -> None:
    found = []
    for seed in (0, 0, 1):
        agent = masked(tagged_sequence(), None, {"seed": seed}, identification="random")
        agent.learn(120)
        skills = masking_of(agent).skill_neurons
        found.append({(task, name): skill.tolist() for task, networks in skills.items() for name, skill in networks.items()})
        assert all(sum(skill) == 3 for skill in found[-1].values())
    assert found[0] == found[1] != found[2]
    assert len({str(skill) for skill in found[0].values()}) > 3  # of 6: other neurons in every network and phase


def test_the_window_is_aligned_with_the_buffer_it_reads() -> None:
    """The whole chain with a buffer so small that it wraps around several times in a phase."""
    looked_up: list[np.ndarray] = []

    class Looking(GradientMasking):
        def _batch(self, buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray) -> Any:
            looked_up.append(buffer.observations[rows, envs].copy())
            return super()._batch(buffer, rows, envs)

    looking = Looking(identification_steps=15, identification_data="training")
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[looking], buffer_size=17)
    agent.learn(10_000)
    assert [rows.shape for rows in looked_up] == [(15, 4)] * 4
    for phase, rows in enumerate(looked_up):
        played = [step[0] for step in TaggedTask.played[1.0 + phase % 2]][(phase // 2) * 60 :][:60]
        np.testing.assert_array_equal(rows, played[-15:])


def test_an_episode_that_a_reset_breaks_off_is_left_out() -> None:
    looked_up: list[np.ndarray] = []

    class Looking(GradientMasking):
        def _batch(self, buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray) -> Any:
            looked_up.append(buffer.observations[rows, envs].copy())
            return super()._batch(buffer, rows, envs)

    looking = Looking(goal_metric="episode_return", identification_data="training")
    agent = tiny(ContinualSAC, tagged_sequence(), interventions=[looking])
    agent.learn(45)
    agent.learn(25)  # resets the environment five steps into an episode
    assert agent.phase.index == 1
    played = [step[0] for step in TaggedTask.played[1.0]]
    assert len(played) == 65
    np.testing.assert_array_equal(looked_up[0], played[:40] + played[45:])


def test_a_spoilt_state_of_one_agent_is_not_shared() -> None:
    """Parameters handed from one agent to another do not tie them together."""
    first = tiny(NBSPSAC, tagged_sequence(), replay=False)
    first.learn(60)
    second = tiny(NBSPSAC, tagged_sequence(), replay=False)
    second.set_parameters(first.get_parameters())
    assert differing(first.hooks._all[0].masks, second.hooks._all[0].masks) == []
    second.learn(120)
    assert set(first.hooks._all[0].scores) == {"red"}
    assert set(second.hooks._all[0].scores) == {"red", "blue"}
