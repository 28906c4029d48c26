"""Skill neurons, against a computation that takes one step and one neuron at a time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from identification_checks import check_scores, inputs_of, masked, masking_of, slow_metric, slow_networks, two_sequences
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from tagged_tasks import ImageTask, RecordingLogger, Spy, TaggedTask, tagged_sequence
from torch import nn

from sb3_nbsp.tasks import TaskSequence


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
    "literal formula": (tagged_sequence, "step_success", {"identification": "goal", "min_active_share": 0}, {}),
    "a high floor": (tagged_sequence, "step_success", {"min_active_share": 0.3, "skill_proportion": 0.5}, {}),
    "printed score": (tagged_sequence, "step_success", {"identification": "goal"}, {}),
    "printed score, return": (
        tagged_sequence,
        "episode_return",
        {"identification": "goal", "goal_metric": "episode_return"},
        {},
    ),
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
    """Nor are those that are on one side of their mean at hardly any step."""
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
        (dead,), (eligible,) = (logger.values(f"nbsp/{name}_{kind}_neurons") for kind in ("dead", "eligible"))
        (skills,), (share,) = logger.values(f"nbsp/{name}_skill_neurons"), logger.values(f"nbsp/{name}_masked_share")
        assert eligible == skills == int(skill[name].sum()) <= 16 - dead and share == 1
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
        assert len(histograms) == min(4, int(skills.sum())) > 2
        assert [histogram["score"] for histogram in histograms] == scores[skills].sort(descending=True).values[:4].tolist()
        for histogram in histograms:
            assert skills[histogram["neuron"]] and histogram["score"] == scores[histogram["neuron"]]
            assert sum(histogram["success"]) + sum(histogram["failure"]) == 60
            assert sum(histogram["success"]) > 0
    agent.save(tmp_path / "agent")
    assert masking_of(type(agent).load(tmp_path / "agent")).histograms == {}, "figures are made of them, not agents"


@pytest.mark.parametrize("identification", ["weight", "random"])
def test_no_histograms_without_activations(identification: str) -> None:
    agent = masked(tagged_sequence(), identification=identification, min_active_share=0)
    agent.learn(60)
    assert masking_of(agent).histograms["red"] == {"actor": [], "qf0": [], "qf1": []}


# Other ways to identify


def test_identification_by_weight_among_all_neurons_needs_no_window() -> None:
    spy = Spy()
    options = {"identification": "weight", "identification_data": "fresh", "min_active_share": 0}
    agent = masked(tagged_sequence(success=None), spy, **options)
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
        agent = masked(tagged_sequence(), None, {"seed": seed}, identification="random", min_active_share=0)
        agent.learn(120)
        skills = masking_of(agent).skill_neurons
        found.append({(task, name): skill.tolist() for task, networks in skills.items() for name, skill in networks.items()})
        assert all(sum(skill) == 3 for skill in found[-1].values())
    assert found[0] == found[1] != found[2]
    assert len({str(skill) for skill in found[0].values()}) > 3  # of 6: other neurons in every network and phase


@pytest.mark.parametrize("identification", ["goal", "balanced", "activation", "weight", "random", "causal"])
def test_a_neuron_that_hardly_ever_moves_is_chosen_by_no_identification(identification: str) -> None:
    """Two neurons of the first layer read one step in a hundred or less, the others all; m counts those."""
    logger = RecordingLogger()
    env = tagged_sequence(steps_per_task=400)
    agent = masked(env, None, {"learning_starts": 1000}, identification=identification, identification_steps=400)
    agent.set_logger(logger)
    first = agent.actor.latent_pi[0]
    with th.no_grad():
        first.weight.zero_()
        first.weight[:, 2] = 1.0  # noise in [-1, 1]
        first.bias.zero_()
        first.weight[3, 2], first.bias[3] = 1000.0, -995.0  # active where it is above 0.995, with large weights
        first.bias[4] = -0.999
    agent.learn(400)
    skills = masking_of(agent).skill_neurons["red"]["actor"]
    assert not skills[[3, 4]].any()
    (eligible,) = logger.values("nbsp/actor_eligible_neurons")
    assert skills.sum() == round(0.2 * eligible) and 6 <= eligible <= 14
