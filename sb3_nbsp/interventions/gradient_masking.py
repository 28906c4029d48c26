"""Gradient masking: find the RL skill neurons of each task and let the optimizer move them only a little (NBSP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn
from typing_extensions import override

from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Lacking, Network, OffPolicyIntervention, Phase
from sb3_nbsp.interventions.fresh_networks import refuse_reset_critics
from sb3_nbsp.interventions.goal_window import GOAL_METRICS, GoalMetric
from sb3_nbsp.interventions.identification_steps import IdentificationSteps
from sb3_nbsp.interventions.identified import Identified
from sb3_nbsp.interventions.masked_statistics import MaskedStatistics, check_maskable
from sb3_nbsp.interventions.networks import AgentNetwork, networks_of
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.parameter_masks import MaskSide, parameter_masks
from sb3_nbsp.interventions.scoring import ScoredNeurons, score_neurons
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.layers import NeuronLayer, split_by_layer
from sb3_nbsp.neurons.masks import MaskedStep, mask_gradients, skill_mask

Identification = Literal["goal", "balanced", "activation", "weight", "random", "causal"]


class GradientMasking(OffPolicyIntervention):
    """
    At the end of a phase, score the hidden neurons of the actor and of each critic (NBSP, equations 1 to 4; by default
    corrected for chance) and select the top ``skill_proportion`` of each network (equation 5). From then on, scale the
    optimizer's steps of their parameters (equations 6 and 7; Algorithms 1 and 2).

    Paper: NBSP, A Neuron-Level Framework for Balancing Stability and Plasticity in Deep Reinforcement Learning.

    :param skill_proportion: m, share of the eligible hidden neurons of a network that are skill neurons, in (0, 1]
    :param mask_alpha: α of equation 7, in [0, 1]
    :param mask_type: "soft" (equation 7) or "hard" (mask 0)
    :param mask_target: "step" scales the optimizer's step, "gradient" scales the gradient, which Adam mostly undoes
    :param mask_accumulation: "minimum" protects the neurons of all tasks, and a task that comes back replaces its own
        masks; "latest" protects only those of the last phase
    :param mask_side: which parameters of a neuron are held back: "incoming" (its weights, its bias, the gain and bias of
        its norm layer), "outgoing" (the weights that read it, those of output layers included) or "both"
    :param mask_networks: "both", "actor" or "critic"
    :param identification: "balanced" (the paper's score, corrected for chance:
        :func:`~sb3_nbsp.neurons.balanced_score`), "goal" (as printed in the paper), "activation", "weight" or "random" (its
        table 3), or "causal" (how much the network's output changes when the neuron is set to zero)
    :param identification_steps: T, number of steps on which neurons are identified
    :param identification_data: "training" takes the last T steps of the phase, "fresh" lets the trained
        policy act for T steps in an environment of its own, without learning; "auto" is "fresh" on a task
        sequence that is not wrapped into another space, and "training" elsewhere
    :param goal_metric: q(t): "step_success", "episode_success", "episode_return", a function of
        (reward, done, info) of a step, or "auto": the step's success if nearly all steps report
        ``info["success"]`` (or ``"is_success"``), the episode's success if only some do, otherwise the episode's return
    :param min_active_share: a neuron is eligible if it is above its mean on at least this share of the steps, and not above
        it on at least this share, in [0, 0.5]. With 0 every neuron is eligible, as in the paper's formula
    :raises ValueError: if an option is out of its range
    """

    capturable: ClassVar[bool] = True
    waits_for_phase_end = True
    holds_networks: ClassVar[bool] = True

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

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        assert isinstance(agent, OffPolicyAlgorithm)
        self._networks = self._find_networks()
        # Complain now, not at the end of a phase
        check_maskable(self._networks, self._modules())
        every = {layer.name: th.ones(layer.n_neurons) for network in self._networks for layer in network.layers}
        parameter_masks(self._networks, every, self.mask_side)
        self._steps_to_look_at = IdentificationSteps(self, agent.n_envs)
        self._masks: dict[str, th.Tensor] = {}
        self._identified: dict[str, Identified] = {}  # by task
        self._histograms: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self._prepare_masks()

    @property
    def masks(self) -> dict[str, th.Tensor]:
        """Mask of every hidden layer, by its name: shape (neurons,). Empty before the first phase has ended."""
        return self._masks

    @property
    def skill_neurons(self) -> dict[str, dict[str, th.Tensor]]:
        """By task and network: which of its hidden neurons are skill neurons, in the order of its layers (boolean)."""
        return {task: found.skill_neurons for task, found in self._identified.items()}

    @property
    @override
    def lacks(self) -> Lacking | None:
        return None if self._identified else "knowledge"

    @property
    def scores(self) -> dict[str, dict[str, th.Tensor]]:
        """By task and network: the scores at the end of the task's last phase, in the order of its layers."""
        return {task: found.scores for task, found in self._identified.items()}

    @property
    def histograms(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """
        By task and network: for the best-scored skill neurons, best first, their place among the network's hidden
        neurons ("neuron"), their "score", and :func:`~sb3_nbsp.neurons.histograms.activation_histogram`. Of the phases that
        have ended since the agent was made or loaded: they are not saved with it.
        """
        return self._histograms

    @property
    def identified_in(self) -> dict[str, int]:
        """By task: the phase at whose end its skill neurons were identified last."""
        return {task: found.phase for task, found in self._identified.items()}

    @property
    def networks(self) -> list[AgentNetwork]:
        """The networks whose neurons are scored."""
        return self._networks

    @override
    def check_agent(self) -> None:
        if self.mask_networks != "actor":
            what = "GradientMasking holds neurons of the critics as they were on earlier tasks"
            refuse_reset_critics(self.agent, what, "mask_networks='actor'")

    @override
    def on_learn_start(self, reset: bool) -> None:
        # Layers may have been exchanged since
        self._look_again()
        self._steps_to_look_at.on_learn_start(reset)

    @override
    def on_transition(self, rewards: np.ndarray, dones: np.ndarray, infos: list[dict[str, Any]]) -> None:
        self._statistics.keep()
        self._steps_to_look_at.add(rewards, dones, infos)

    @override
    def on_phase_start(self, phase: Phase) -> None:
        self._steps_to_look_at.window.clear()

    def on_phase_end(self, phase: Phase) -> None:
        """Identify the skill neurons of the task and update the masks (Algorithm 2, lines 19 and 20)."""
        steps = self._steps_to_look_at.take(phase, len(self._networks))
        if steps is None:
            return
        self.agent.policy.set_training_mode(False)
        found = {
            network.name: score_neurons(self, network, steps, own_seed(self.agent, phase, index))
            for index, network in enumerate(self._networks)
        }
        self._identified[phase.task] = Identified(
            phase.index,
            {name: neurons.scores for name, neurons in found.items()},
            {name: neurons.skill_neurons for name, neurons in found.items()},
        )
        self._histograms[phase.task] = {name: neurons.histograms for name, neurons in found.items()}
        self._prepare_masks()
        for network in self._networks:
            self._record(network, found[network.name])

    @override
    def before_step(self, network: Network) -> None:
        if network in self._gradient_masks:
            mask_gradients(self._gradient_masks[network])

    @override
    def masked_step(self, network: Network) -> MaskedStep | None:
        return self._steps.get(network)

    @override
    def after_step(self, network: Network) -> None:
        # Forward passes move the statistics of both networks
        self._statistics.after_step()

    @override
    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        self._statistics.keep()
        if not self._identified:
            return
        by_layer = {layer.linear: neurons for layer, neurons in renewed}
        for network in self._networks:
            found = [by_layer.get(layer.linear) for layer in network.layers]
            parts = [th.zeros(layer.n_neurons, dtype=th.bool) for layer in network.layers]
            for part, neurons in zip(parts, found, strict=True):
                part[[] if neurons is None else neurons.cpu()] = True
            for identified in self._identified.values():
                identified.forget(network.name, th.cat(parts))
        self._prepare_masks()

    @override
    def state_dict(self) -> dict[str, Any]:
        identified = {task: asdict(found) for task, found in self._identified.items()}
        return {"identified": identified, "window": self._steps_to_look_at.window.state_dict()}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._identified = {task: Identified(**found) for task, found in state["identified"].items()}
        self._steps_to_look_at.window.load_state_dict(state["window"])
        self._prepare_masks()

    def _modules(self) -> list[tuple[str, nn.Module]]:
        owners: dict[Network, nn.Module] = {"actor": self.agent.policy.actor, "critic": self.agent.policy.critic}  # type: ignore[dict-item]
        masked = {network.role for network in self._networks}
        return [(f"{name}.{part}", module) for name in masked for part, module in owners[name].named_modules()]

    def _find_networks(self) -> list[AgentNetwork]:
        networks = [each for each in networks_of(self.agent) if self.mask_networks in ("both", each.role)]
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
            if any([found.drop(network.name) for found in self._identified.values()]):
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
        tasks = list(self._identified.values())
        if self.mask_accumulation == "latest":
            tasks = sorted(tasks, key=lambda found: found.phase)[-1:]
        masks: dict[str, th.Tensor] = {}
        for found in tasks:
            for network in self._networks:
                if network.name not in found.skill_neurons:  # mask_networks was another then
                    continue
                scores, selected = found.scores[network.name], found.skill_neurons[network.name]
                mask = skill_mask(scores, selected, self.mask_alpha, self.mask_type == "hard")
                for name, part in split_by_layer(mask, network.layers).items():
                    # Critics may share a features extractor: protected for one is protected
                    masks[name] = th.minimum(masks[name], part) if name in masks else part
        return masks

    def _record(self, network: AgentNetwork, found: ScoredNeurons) -> None:
        record, name = self.agent.logger.record, network.name
        chosen = found.scores[found.skill_neurons]
        if len(chosen):
            record(f"nbsp/{name}_threshold", chosen.min().item())
            record(f"nbsp/{name}_max_score", chosen.max().item())
        record(f"nbsp/{name}_skill_neurons", int(found.skill_neurons.sum()))
        record(f"nbsp/{name}_eligible_neurons", int(found.eligible.sum()))
        if found.n_dead is not None:
            record(f"nbsp/{name}_dead_neurons", found.n_dead)
        masked = th.cat([self._masks[layer.name] for layer in network.layers]) < 1
        share = (masked & found.eligible).sum() / found.eligible.sum().clamp(min=1)
        record(f"nbsp/{name}_masked_share", share.item())
