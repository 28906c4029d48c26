"""Gradient masking: find the RL skill neurons of each task and let the optimizer move them only a little (NBSP)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Network, OffPolicyIntervention, Phase, own_seed
from sb3_nbsp.interventions.goal_window import GOAL_METRICS, GoalMetric, GoalWindow
from sb3_nbsp.interventions.masked_statistics import MaskedStatistics, check_maskable
from sb3_nbsp.interventions.networks import ScoredNetwork, scored_networks
from sb3_nbsp.interventions.parameter_masks import MaskSide, parameter_masks
from sb3_nbsp.interventions.rollout import fresh_steps, has_own_spaces
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.histograms import activation_histogram
from sb3_nbsp.neurons.layers import NeuronLayer, count_neurons, split_by_layer
from sb3_nbsp.neurons.masks import MaskedStep, mask_gradients, skill_mask
from sb3_nbsp.neurons.scores import (
    activation_score,
    active_share,
    balanced_score,
    dead_neurons,
    goal_oriented_score,
    random_score,
    select_top,
    weight_score,
)
from sb3_nbsp.tasks.recognize import has_phases
from sb3_nbsp.tasks.task_envs import task_makers

Identification = Literal["goal", "balanced", "activation", "weight", "random"]
# Those that compare what a neuron does with q(t), and those that need no step to score
GOAL_ORIENTED, WITHOUT_STEPS = ("goal", "balanced"), ("weight", "random")
# Histograms are kept of so many of the best-scored skill neurons of each network
N_HISTOGRAMS = 4
# With fewer of the steps that were asked for, there is a warning
ENOUGH_STEPS = 0.5


class GradientMasking(OffPolicyIntervention):
    """
    At the end of a phase, score the hidden neurons of the actor and of each critic (NBSP, equations 1 to 4; by default
    corrected for chance),
    select the top ``skill_proportion`` of each network (equation 5) and from then on scale what
    the optimizer does to their parameters (equations 6 and 7; Algorithms 1 and 2).

    Paper: NBSP, A Neuron-Level Framework for Balancing Stability and Plasticity in Deep Reinforcement Learning.

    :param skill_proportion: m, share of the eligible hidden neurons of a network that are skill neurons, in (0, 1]
    :param mask_alpha: α of equation 7, in [0, 1]
    :param mask_type: "soft" (equation 7) or "hard" (mask 0)
    :param mask_target: "step" scales the optimizer's step, "gradient" the gradient, which Adam mostly undoes
    :param mask_accumulation: "minimum" keeps protecting the neurons of all tasks, and a task that comes back replaces its
        own; "latest" protects only those of the last phase
    :param mask_side: the parameters of a neuron that are held back: "incoming" (its weights, its bias, the gain and bias of
        its norm layer), "outgoing" (the weights that read it, those of output layers included) or "both"
    :param mask_networks: "both", "actor" or "critic"
    :param identification: "balanced" (the paper's score, corrected for chance:
        :func:`~sb3_nbsp.neurons.balanced_score`), "goal" (as it is printed), "activation", "weight" or "random" (its table 3)
    :param identification_steps: T, number of steps to identify on
    :param identification_data: "training" takes the last T steps of the phase, "fresh" lets the trained
        policy act for T steps in an environment of its own, without learning; "auto" is "fresh" on a task
        sequence that is not wrapped into another space, and "training" elsewhere
    :param goal_metric: q(t): "step_success", "episode_success", "episode_return", a function of
        (reward, done, info) of a step, or "auto": the step's success where nearly all steps report
        ``info["success"]`` (or ``"is_success"``), the episode's success where only some do, its return elsewhere
    :param min_active_share: a neuron is eligible if at least this share of the steps is above its mean, and this share
        not, in [0, 0.5]. With 0 every neuron is eligible, which is the paper's literal formula
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True

    def __init__(
        self,
        skill_proportion: float = 0.2,
        mask_alpha: float = 0.2,
        mask_type: Literal["soft", "hard"] = "soft",
        mask_target: Literal["step", "gradient"] = "step",
        mask_accumulation: Literal["minimum", "latest"] = "minimum",
        mask_side: MaskSide = "incoming",
        mask_networks: Literal["both", "actor", "critic"] = "both",
        identification: Identification = "balanced",
        identification_steps: int = 10_000,
        identification_data: Literal["auto", "training", "fresh"] = "auto",
        goal_metric: GoalMetric = "auto",
        min_active_share: float = 0.01,
    ) -> None:
        check_range("skill_proportion", skill_proportion, 0, 1, low_open=True)
        check_range("mask_alpha", mask_alpha, 0, 1)
        check_option("mask_type", mask_type, ("soft", "hard"))
        check_option("mask_target", mask_target, ("step", "gradient"))
        check_option("mask_accumulation", mask_accumulation, ("minimum", "latest"))
        check_option("mask_side", mask_side, get_args(MaskSide))
        check_option("mask_networks", mask_networks, ("both", "actor", "critic"))
        check_option("identification", identification, get_args(Identification))
        identification_steps = whole("identification_steps", identification_steps, 1)
        check_option("identification_data", identification_data, ("auto", "training", "fresh"))
        if not callable(goal_metric):
            check_option("goal_metric", goal_metric, GOAL_METRICS)
        check_range("min_active_share", min_active_share, 0, 0.5)
        self.skill_proportion = skill_proportion
        self.mask_alpha = mask_alpha
        self.mask_type = mask_type
        self.mask_target = mask_target
        self.mask_accumulation = mask_accumulation
        self.mask_side = mask_side
        self.mask_networks = mask_networks
        self.identification = identification
        self.identification_steps = identification_steps
        self.identification_data = identification_data
        self.goal_metric = goal_metric
        self.min_active_share = min_active_share

    def attach(self, agent: BaseAlgorithm) -> None:
        """See :meth:`Intervention.attach`."""
        super().attach(agent)
        assert isinstance(agent, OffPolicyAlgorithm)
        if isinstance(agent.observation_space, spaces.Dict):
            raise ValueError("GradientMasking needs a policy on one observation (MlpPolicy, CnnPolicy), not MultiInputPolicy")
        self._networks = self._find_networks()
        # Complain now, not at the end of a phase
        check_maskable(self._networks, self._modules())
        every = {layer.name: th.ones(layer.n_neurons) for network in self._networks for layer in network.layers}
        parameter_masks(self._networks, every, self.mask_side)
        self._window = self._new_window(agent.n_envs)
        self._masks: dict[str, th.Tensor] = {}
        self._scores: dict[str, dict[str, th.Tensor]] = {}
        self._skills: dict[str, dict[str, th.Tensor]] = {}
        self._histograms: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self._identified_in: dict[str, int] = {}
        self._warned: set[str] = set()
        self._task_makers: dict[str, Callable[[], gym.Env]] = {}
        self._prepare_masks()

    @property
    def masks(self) -> dict[str, th.Tensor]:
        """Mask of every hidden layer, by its name: shape (neurons,). Empty before the first phase has ended."""
        return self._masks

    @property
    def skill_neurons(self) -> dict[str, dict[str, th.Tensor]]:
        """By task and network: which of its hidden neurons are skill neurons, in the order of its layers (boolean)."""
        return self._skills

    @property
    def scores(self) -> dict[str, dict[str, th.Tensor]]:
        """By task and network: the scores at the end of the task's last phase, in the order of its layers."""
        return self._scores

    @property
    def histograms(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """
        By task and network: for the best-scored skill neurons, best first, their place among the network's hidden
        neurons ("neuron"), their "score", and :func:`~sb3_nbsp.neurons.histograms.activation_histogram`.
        """
        return self._histograms

    @property
    def identified_in(self) -> dict[str, int]:
        """By task: the phase at whose end its skill neurons were identified last."""
        return self._identified_in

    @property
    def networks(self) -> list[ScoredNetwork]:
        """The networks whose neurons are scored."""
        return self._networks

    def on_learn_start(self, reset: bool) -> None:
        """See :meth:`Intervention.on_learn_start`. Layers may have been exchanged since."""
        self._look_again()
        if reset:
            self._window.break_episodes()
        env = self.agent.env
        assert env is not None
        self._window.of_sequence = has_phases(env)
        if self.identification_data != "training" and self._window.of_sequence:
            try:
                # A phase also ends when the environment is exchanged for one that may lack its task
                self._task_makers.update(task_makers(env))
            except ValueError as error:
                if self.identification_data == "fresh":
                    raise ValueError(f"{error}. For these, there is identification_data='training'") from error

    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        """See :meth:`Intervention.on_transition`."""
        self._statistics.keep()
        if self.identification_data != "fresh":
            self._window.add(rewards, dones, infos)

    def on_phase_start(self, phase: Phase) -> None:
        """See :meth:`Intervention.on_phase_start`."""
        self._window.clear()

    def on_phase_end(self, phase: Phase) -> None:
        """Identify the skill neurons of the task and update the masks (Algorithm 2, lines 19 and 20)."""
        steps = self._identification_steps(phase)
        if steps is None:
            return
        observations, actions, goal_metric = steps
        self.agent.policy.set_training_mode(False)
        self._scores[phase.task], self._skills[phase.task], self._histograms[phase.task] = {}, {}, {}
        self._identified_in[phase.task] = phase.index
        live: dict[str, th.Tensor] = {}
        for index, network in enumerate(self._networks):
            activations = self._activations(network, observations, actions)
            eligible = self._eligible(network, activations)
            scores = self._score(network, activations, goal_metric, eligible, own_seed(self.agent, phase, index))
            selected = select_top(scores, self.skill_proportion, eligible)
            self._histograms[phase.task][network.name] = _best_histograms(scores, selected, activations, goal_metric)
            self._scores[phase.task][network.name], self._skills[phase.task][network.name] = scores, selected
            self._record(network, scores, selected, eligible, activations)
            live[network.name] = eligible
        self._prepare_masks()
        for network in self._networks:
            masked = th.cat([self._masks[layer.name] for layer in network.layers]) < 1
            share = (masked & live[network.name]).sum() / live[network.name].sum().clamp(min=1)
            self.agent.logger.record(f"nbsp/{network.name}_masked_share", share.item())

    def before_step(self, network: Network) -> None:
        """See :meth:`Intervention.before_step`."""
        if network in self._gradient_masks:
            mask_gradients(self._gradient_masks[network])

    def masked_step(self, network: Network) -> MaskedStep | None:
        """See :meth:`Intervention.masked_step`."""
        return self._steps.get(network)

    def after_step(self, network: Network) -> None:
        """See :meth:`Intervention.after_step`. Forward passes move the statistics of both networks."""
        self._statistics.after_step()

    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        """See :meth:`Intervention.after_renewal`."""
        self._statistics.keep()

    def state_dict(self) -> dict[str, Any]:
        """See :meth:`Intervention.state_dict`."""
        window = self._window.state_dict()
        found = {"scores": self._scores, "skill_neurons": self._skills, "histograms": self._histograms}
        return {**found, "identified_in": self._identified_in, "window": window}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See :meth:`Intervention.load_state_dict`."""
        self._scores, self._skills = dict(state["scores"]), dict(state["skill_neurons"])
        self._histograms, self._identified_in = dict(state["histograms"]), dict(state["identified_in"])
        self._window.load_state_dict(state["window"])
        self._prepare_masks()

    def _modules(self) -> list[tuple[str, nn.Module]]:
        owners: dict[Network, nn.Module] = {"actor": self.agent.policy.actor, "critic": self.agent.policy.critic}  # type: ignore[dict-item]
        masked = {network.optimized_by for network in self._networks}
        return [(f"{name}.{part}", module) for name in masked for part, module in owners[name].named_modules()]

    def _new_window(self, n_envs: int) -> GoalWindow:
        custom: Callable[..., float] | None = self.goal_metric if callable(self.goal_metric) else None
        return GoalWindow(self.identification_steps, n_envs, custom)

    def _identification_steps(self, phase: Phase) -> tuple[th.Tensor, th.Tensor, np.ndarray] | None:
        """Observations, actions and q(t) of the steps to identify on; None, with a warning, if there are none to tell."""
        window, buffer = self._window, self.agent.replay_buffer
        assert buffer is not None
        if not self._looks_at_steps:
            rows = envs = np.zeros(0, dtype=int)
            return (*self._batch(buffer, rows, envs), np.zeros(0))
        if self._wants_fresh_steps(phase):
            if phase.task not in self._task_makers:
                self._skip(phase, f"the environment's task_makers lack the task {phase.task!r}, which has just ended")
                return None
            window, buffer = self._fresh_steps(phase)
        rows, envs, goal_metric = self._goal_metric(window, buffer)
        if len(rows) == 0:
            self._skip(phase, "there is no complete episode to identify them on; raise identification_steps")
            return None
        if self.identification in GOAL_ORIENTED and _is_constant(goal_metric):
            self._skip(phase, "the goal metric is the same at all steps, and so is the return of the episodes")
            return None
        self._check_number(len(rows))
        return (*self._batch(buffer, rows, envs), goal_metric)

    @property
    def _looks_at_steps(self) -> bool:
        return self.identification not in WITHOUT_STEPS or self.min_active_share > 0

    def _check_number(self, n_steps: int) -> None:
        self.agent.logger.record("nbsp/identification_steps", n_steps)
        if n_steps < ENOUGH_STEPS * self.identification_steps and "steps" not in self._warned:
            self._warned.add("steps")
            warn(
                f"Skill neurons are identified on {n_steps} steps instead of identification_steps="
                f"{self.identification_steps}: of the others the goal metric ({self._metric_name}) is not known, or the "
                "phase or the replay buffer is too short. Give another goal_metric, larger ones, or fewer "
                "identification_steps. Later phases only record nbsp/identification_steps"
            )

    def _wants_fresh_steps(self, phase: Phase) -> bool:
        if self.identification_data != "auto":
            return self.identification_data == "fresh"
        return phase.task in self._task_makers and has_own_spaces(self.agent, self._task_makers[phase.task])

    def _skip(self, phase: Phase, reason: str) -> None:
        warn(f"No skill neurons are identified at the end of phase {phase.index + 1} ({phase.task}): {reason}")

    def _fresh_steps(self, phase: Phase) -> tuple[GoalWindow, ReplayBuffer]:
        window = self._new_window(1)
        seed = own_seed(self.agent, phase, len(self._networks))
        bar = getattr(self.agent, "show_progress", False)
        steps = fresh_steps(self.agent, self._task_makers[phase.task], self.identification_steps, seed, window, bar)
        return window, steps

    def _goal_metric(self, window: GoalWindow, buffer: ReplayBuffer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps with a known goal metric: rows and columns of the buffer's arrays, and q(t)."""
        name = "custom" if callable(self.goal_metric) else str(self.goal_metric)
        self._metric_name = name = window.best_known(buffer) if name == "auto" else name
        rows, envs, goal_metric = window.select(name, buffer)
        is_constant = _is_constant(goal_metric)
        self.agent.logger.record("nbsp/goal_metric_is_constant", int(is_constant))
        if self.identification not in GOAL_ORIENTED and len(rows) == 0:
            return window.select("any", buffer)
        if is_constant and name != "episode_return" and self.identification in GOAL_ORIENTED:
            fallback = window.select("episode_return", buffer)
            if "constant" not in self._warned and not _is_constant(fallback[2]):
                self._warned.add("constant")
                warn(
                    f"The goal metric ({name}) is the same at all steps of the window and cannot tell neurons apart: "
                    "the episode return takes its place. Later windows are recorded as nbsp/goal_metric_is_constant only"
                )
            self._metric_name = "episode_return"
            return fallback
        return rows, envs, goal_metric

    def _batch(self, buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray) -> tuple[th.Tensor, th.Tensor]:
        """Observations (normalized as in training) and actions of the steps."""
        normalizer = self.agent.get_vec_normalize_env()
        observations = buffer._normalize_obs(buffer.observations[rows, envs], normalizer)
        assert isinstance(observations, np.ndarray)
        return buffer.to_torch(observations), buffer.to_torch(buffer.actions[rows, envs])

    def _activations(self, network: ScoredNetwork, observations: th.Tensor, actions: th.Tensor) -> th.Tensor | None:
        """Of all neurons of a network, shape (T, neurons); None if the identification looks at no step."""
        if not self._looks_at_steps:
            return None
        return record_activations(network.forward, (observations, actions), network.layers)

    def _eligible(self, network: ScoredNetwork, activations: th.Tensor | None) -> th.Tensor:
        """Which neurons may be selected: those that are on both sides of their mean often enough."""
        if activations is None or self.min_active_share == 0:
            return th.ones(count_neurons(network.layers), dtype=th.bool, device=self.agent.device)
        return active_share(activations) >= self.min_active_share

    def _score(
        self,
        network: ScoredNetwork,
        activations: th.Tensor | None,
        goal_metric: np.ndarray,
        eligible: th.Tensor,
        seed: int,
    ) -> th.Tensor:
        """Scores of all neurons of a network. Where they compare with the goal, ineligible neurons have the lowest."""
        if self.identification == "weight":
            return _to_unit(weight_score(network.layers))
        if self.identification == "random":
            scores = random_score(count_neurons(network.layers), th.Generator().manual_seed(seed))
            return _to_unit(scores).to(self.agent.device)
        assert activations is not None
        if self.identification == "activation":
            return _to_unit(activation_score(activations))
        score = goal_oriented_score if self.identification == "goal" else balanced_score
        scores = score(activations, th.as_tensor(goal_metric, device=activations.device))
        return scores.masked_fill(~eligible, 0.5)

    def _find_networks(self) -> list[ScoredNetwork]:
        networks = [each for each in scored_networks(self.agent) if self.mask_networks in ("both", each.optimized_by)]
        for network in networks:
            if not network.layers:
                raise ValueError(f"policy_kwargs: net_arch gives the network {network.name!r} no hidden layer to mask")
        return networks

    def _look_again(self) -> None:
        """Masks belong to a network's neurons by their places: they stay as long as the widths of its layers do."""
        widths = {network.name: [layer.n_neurons for layer in network.layers] for network in self._networks}
        self._networks = self._find_networks()
        for network in self._networks:
            if [layer.n_neurons for layer in network.layers] == widths[network.name]:
                continue
            by_task = [of_task for found in (self._scores, self._skills, self._histograms) for of_task in found.values()]
            if any([of_task.pop(network.name, None) is not None for of_task in by_task]):
                warn(f"{network.name}: the widths of its layers have changed, its masks and scores are dropped")
        self._prepare_masks()

    def _prepare_masks(self) -> None:
        """Masks of the layers from what is known of the tasks, and of the parameters of each optimizer from these."""
        self._masks = self._masks_of_layers()
        by_parameter = parameter_masks(self._networks, self._masks, self.mask_side)
        self._statistics = MaskedStatistics(self._networks, {} if self.mask_side == "outgoing" else self._masks)
        self._steps: dict[Network, MaskedStep] = {}
        self._gradient_masks: dict[Network, list[tuple[nn.Parameter, th.Tensor]]] = {}
        optimizers: dict[Network, th.optim.Optimizer] = {
            "actor": self.agent.policy.actor.optimizer,  # type: ignore[union-attr, dict-item]
            "critic": self.agent.policy.critic.optimizer,  # type: ignore[union-attr, dict-item]
        }
        for name, optimizer in optimizers.items():
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            masked = [(parameter, by_parameter[parameter]) for parameter in parameters if parameter in by_parameter]
            if masked and self.mask_target == "step":
                self._steps[name] = MaskedStep(masked)
            elif masked:
                self._gradient_masks[name] = masked

    def _masks_of_layers(self) -> dict[str, th.Tensor]:
        """The smallest mask of each neuron over the tasks, or that of the task of the last phase."""
        tasks = list(self._skills)
        if self.mask_accumulation == "latest":
            tasks = sorted(tasks, key=self._identified_in.__getitem__)[-1:]
        masks: dict[str, th.Tensor] = {}
        for task in tasks:
            for network in self._networks:
                if network.name not in self._skills[task]:  # mask_networks was another then
                    continue
                scores, selected = self._scores[task][network.name], self._skills[task][network.name]
                mask = skill_mask(scores, selected, self.mask_alpha, self.mask_type == "hard")
                for name, part in split_by_layer(mask, network.layers).items():
                    # Critics may share a features extractor: protected for one is protected
                    masks[name] = th.minimum(masks[name], part) if name in masks else part
        return masks

    def _record(
        self,
        network: ScoredNetwork,
        scores: th.Tensor,
        selected: th.Tensor,
        eligible: th.Tensor,
        activations: th.Tensor | None,
    ) -> None:
        record = self.agent.logger.record
        chosen = scores[selected]
        if len(chosen):
            record(f"nbsp/{network.name}_threshold", chosen.min().item())
            record(f"nbsp/{network.name}_max_score", chosen.max().item())
        record(f"nbsp/{network.name}_skill_neurons", int(selected.sum()))
        record(f"nbsp/{network.name}_eligible_neurons", int(eligible.sum()))
        if activations is not None:
            record(f"nbsp/{network.name}_dead_neurons", int(dead_neurons(activations).sum()))


def _best_histograms(
    scores: th.Tensor, selected: th.Tensor, activations: th.Tensor | None, goal_metric: np.ndarray
) -> list[dict[str, Any]]:
    if activations is None:
        return []
    order = sorted(th.nonzero(selected).flatten().tolist(), key=lambda neuron: -scores[neuron].item())[:N_HISTOGRAMS]
    metric = th.as_tensor(goal_metric)
    return [
        {"neuron": neuron, "score": scores[neuron].item(), **activation_histogram(activations[:, neuron], metric)}
        for neuron in order
    ]


def _is_constant(goal_metric: np.ndarray) -> bool:
    return len(goal_metric) == 0 or bool((goal_metric == goal_metric[0]).all())


def _to_unit(scores: th.Tensor) -> th.Tensor:
    """
    Bring scores of any scale into [0.5, 1] without changing their order, as equation 7 expects them:
    by rank, the lowest to 0.5 and the highest to 1. Of equal scores the earlier one ranks higher.
    """
    ranks = th.empty_like(scores)
    descending = th.sort(scores, descending=True, stable=True).indices
    ranks[descending.flip(0)] = th.arange(len(scores), dtype=scores.dtype, device=scores.device)
    return 0.5 + 0.5 * ranks / max(len(scores) - 1, 1)
