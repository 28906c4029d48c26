"""SAC for discrete actions that knows phases and takes interventions."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, ClassVar, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from torch import nn
from typing_extensions import override

from sb3_nbsp.algorithms.autograd_discrete_sac import DiscreteGradients, Reduction
from sb3_nbsp.algorithms.discrete_policies import (
    DiscreteActor,
    DiscreteCritic,
    DiscreteSACCnnPolicy,
    DiscreteSACMultiInputPolicy,
    DiscreteSACPolicy,
)
from sb3_nbsp.algorithms.soft_actor_critic import SoftActorCritic
from sb3_nbsp.checks import check_option, check_range
from sb3_nbsp.fast.discrete_sac_gradients import MlpDiscreteGradients, can_use_mlp_discrete_gradients
from sb3_nbsp.fast.matmul_precision import multiplies_bfloat16
from sb3_nbsp.fast.sac_gradients import SACGradients


class _DiscreteActions(OffPolicyAlgorithm):
    """Comes after SB3's SAC in a class's bases, which hands on that it supports continuous actions only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "supported_action_spaces": (spaces.Discrete,), "sde_support": False})


class ContinualDiscreteSAC(SoftActorCritic, _DiscreteActions):
    """
    Soft Actor-Critic for discrete actions, over a sequence of tasks or on a single one, with the losses of CleanRL's
    ``sac_atari.py``, whose configuration the NBSP paper uses (appendix C.3).

    Every parameter that is not listed here is that of SB3's SAC: see :class:`stable_baselines3.SAC`. There are two
    differences: gSDE and action noise are not supported, and ``target_update_interval`` counts environment steps over the
    agent's life.

    :param target_entropy_scale: with ``target_entropy="auto"``, the target entropy is this share of the largest possible one,
        the logarithm of the number of actions. If the temperature grows without bound, it is too large
    :param loss_reduction: "mean" (CleanRL) or "sum" over the actions, in the losses of the actor and of the temperature. The
        sum is the paper's expectation. The mean is 1 / (number of actions) of it, and so are the penalties of EWC, ANCL and
        ClonEx on the actor
    :raises ValueError: if an option is out of its range, or ``target_entropy`` is an entropy that no policy can have
    :raises TypeError: if there is no option of a name
    """

    settable: ClassVar[frozenset[str]] = SoftActorCritic.settable | {"loss_reduction"}
    other_actions = "for continuous actions, there are ContinualSAC and the methods on it (in the zoo ..._sac)"
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": DiscreteSACPolicy,
        "CnnPolicy": DiscreteSACCnnPolicy,
        "MultiInputPolicy": DiscreteSACMultiInputPolicy,
    }
    policy: DiscreteSACPolicy
    actor: DiscreteActor  # type: ignore[assignment]
    critic: DiscreteCritic  # type: ignore[assignment]
    critic_target: DiscreteCritic  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[DiscreteSACPolicy],
        env: GymEnv | str,
        *args: Any,
        target_entropy_scale: float = 0.89,
        loss_reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        self.target_entropy_scale = target_entropy_scale
        self.loss_reduction = loss_reduction
        self._auto_target_entropy: float | Literal["auto"] = "auto"  # what "auto" has become
        self._targets_seen = 0  # life steps up to which it is known whether the targets were due
        super().__init__(policy, env, *args, **kwargs)

    @override
    def _check_options(self) -> None:
        super()._check_options()
        check_range("target_entropy_scale", self.target_entropy_scale, 0, 1)
        check_option("loss_reduction", self.loss_reduction, ("mean", "sum"))

    @override
    def _setup_model(self) -> None:
        self._check_actions()
        if self.target_entropy in ("auto", self._auto_target_entropy):
            assert isinstance(self.action_space, spaces.Discrete)
            self._auto_target_entropy = self.target_entropy_scale * math.log(self.action_space.n)
            self.target_entropy = self._auto_target_entropy
        self._check_target_entropy()
        super()._setup_model()
        if self.ent_coef_optimizer is not None and "eps" in self.policy.optimizer_kwargs:
            for group in self.ent_coef_optimizer.param_groups:
                group["eps"] = self.policy.optimizer_kwargs["eps"]

    def _check_actions(self) -> None:
        if not isinstance(self.action_space, spaces.Discrete):
            raise ValueError(f"{type(self).__name__} is for discrete actions, not for those of {self.action_space}")
        if self.action_space.start != 0:
            raise ValueError(
                f"action_space: the actions of {self.action_space} begin at {self.action_space.start}, but must begin at 0: "
                "shift them in a wrapper (gymnasium.wrappers.TransformAction)"
            )
        if self.use_sde or self.use_sde_at_warmup or self.action_noise is not None:
            raise ValueError("use_sde, use_sde_at_warmup, action_noise: these are for continuous actions, leave them out")

    def _check_target_entropy(self) -> None:
        """The temperature would fall to 0 or grow without bound, as with what SAC has for continuous actions."""
        assert isinstance(self.action_space, spaces.Discrete)
        highest = math.log(self.action_space.n)
        if not isinstance(self.target_entropy, Real) or not 0 <= float(self.target_entropy) <= highest:
            raise ValueError(
                f'target_entropy must be "auto" or between 0 and log({self.action_space.n}) = {highest:.3f}, the largest '
                f"entropy of {self.action_space.n} actions, not {self.target_entropy!r}"
            )

    @property
    def actor_loss_scale(self) -> float:
        """Factor of the actor's loss before its expectation over the actions."""
        assert isinstance(self.action_space, spaces.Discrete)
        return 1.0 if self.loss_reduction == "sum" else 1 / int(self.action_space.n)

    @override
    def _make_gradients(self) -> SACGradients:
        networks = self.actor, self.critic, self.critic_target
        if self._is_by_hand():
            return MlpDiscreteGradients(*networks, self.actor_loss_scale, self._layers())
        rounds = self.matmul_precision == "medium" and self._can_round() and multiplies_bfloat16(self.device)
        return DiscreteGradients(*networks, self.all_interventions, self.loss_reduction, self.fused, rounds)

    @override
    def _is_by_hand(self) -> bool:
        networks = self.actor, self.critic, self.critic_target
        return (
            self.fused
            and not self.all_interventions.need_autograd()
            and [type(net) for net in networks] == [DiscreteActor, DiscreteCritic, DiscreteCritic]
            and can_use_mlp_discrete_gradients(*networks)
        )

    @override
    def _can_round(self) -> bool:
        has_convolutions = any(isinstance(module, nn.Conv2d) for module in self.actor.modules())
        return self._is_by_hand() or (self.fused and has_convolutions)

    @override
    def _targets_are_due(self, gradient_step: int, gradient_steps: int) -> bool:
        """
        Whether a multiple of ``target_update_interval`` lies among the environment steps that this gradient step is made for:
        those of the rollout, shared out between its gradient steps.
        """
        end = self._life_steps
        start = max(self._targets_seen, end - self._rollout_steps * self.n_envs)
        if gradient_step == gradient_steps - 1:
            self._targets_seen = end
        first, last = (start + (end - start) * step // gradient_steps for step in (gradient_step, gradient_step + 1))
        return last // self.target_update_interval > first // self.target_update_interval

    @staticmethod
    @override
    def _entropy(log_prob: th.Tensor) -> th.Tensor:
        """Exact, from the log-probabilities of all actions, shape (batch, actions)."""
        log_prob = log_prob.detach()
        return -(log_prob.exp() * log_prob).sum(dim=1).mean()

    @override
    def _initialize(self, network: nn.Module) -> None:
        self.policy.initialize(network)
