"""PPO with hooks for interventions."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance

from sb3_nbsp.algorithms.agent import ContinualAgent
from sb3_nbsp.algorithms.autograd_ppo import AutogradPPOGradients
from sb3_nbsp.algorithms.policies import PPOCnnPolicy, PPOMlpPolicy, PPOMultiInputPolicy
from sb3_nbsp.algorithms.rollout_phases import PhasedRollouts
from sb3_nbsp.checks import whole
from sb3_nbsp.fast.actor_rollouts import ActorRollouts
from sb3_nbsp.fast.matmul_precision import on_cuda
from sb3_nbsp.fast.mlp_actor_critic import MlpActorCritic, is_mlp_actor_critic
from sb3_nbsp.fast.ppo_gradients import MlpPPOGradients, PPOGradients, PPOObjective
from sb3_nbsp.interventions.base import NETWORKS, ON_POLICY_HOOKS
from sb3_nbsp.messages import warn

# Attributes that live for one call of train()
_OF_ONE_TRAINING = ["_objective", "_records"]


class ContinualPPO(ContinualAgent, PhasedRollouts, ActorRollouts):
    """
    Proximal Policy Optimization that takes interventions and follows the phases of a task sequence. Without interventions it
    is SB3's PPO, except that training ends with the sequence.

    Every parameter that is not listed here is SB3's: see :class:`stable_baselines3.PPO`.

    :raises ValueError: if an option is out of its range
    """

    sb3_class: ClassVar = PPO
    called_hooks: ClassVar[frozenset[str]] = ON_POLICY_HOOKS
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": PPOMlpPolicy,
        "CnnPolicy": PPOCnnPolicy,
        "MultiInputPolicy": PPOMultiInputPolicy,
    }

    def _setup_model(self) -> None:
        for name in ("batch_size", "n_epochs"):  # SB3 fails at the first update
            setattr(self, name, whole(name, getattr(self, name), 1))
        super()._setup_model()

    def _optimizers(self) -> list[th.optim.Optimizer]:
        return [self.policy.optimizer]

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        self._warn_of_shifted_actions()
        return super()._setup_learn(*args, **kwargs)

    def _warn_of_shifted_actions(self) -> None:
        """SB3 counts discrete actions from 0, whatever their space says."""
        start = getattr(self.action_space, "start", 0)
        if np.any(start) and "start" not in self._warned:
            self._warned.append("start")
            warn(
                f"The actions of {self.action_space} begin at {start}, but SB3's agents send actions that begin at 0, some of "
                "which are not in this space: shift them in a wrapper (gymnasium.wrappers.TransformAction)"
            )

    def _maybe_recommend_cpu(self, mlp_class_name: str = PPOMlpPolicy.__name__) -> None:
        super()._maybe_recommend_cpu(mlp_class_name)  # SB3 looks for its own MlpPolicy by name

    def train(self) -> None:
        """Epochs of PPO on the rollout, with the interventions' hooks in them (P3O, Algorithm 2)."""
        self._deliver()
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        gradients = self._make_gradients()
        self._records: dict[str, list[th.Tensor]] = {}

        for epoch in range(self.n_epochs + self.all_interventions.extra_epochs()):
            self._records["approx_kl"] = []  # SB3 records that of the last epoch
            with on_cuda(self.matmul_precision, self.device):
                continue_training = all(
                    self._step(gradients, batch, epoch) for batch in self.rollout_buffer.get(self.batch_size)
                )
            self._n_updates += 1
            if not continue_training:
                break

        vars(self.policy.action_dist)["distribution"] = None  # it holds a graph, with which no policy can be copied
        self.all_interventions.after_train()
        self._record_training()

    def _step(self, gradients: PPOGradients, batch: RolloutBufferSamples, epoch: int) -> bool:
        """
        One gradient step.

        :param gradients: gradients of the loss
        :param batch: a minibatch of the rollout
        :param epoch: number of the epoch, from 0
        :return: False if the policy has moved too far (``target_kl``), in which case no step was made
        """
        losses = gradients.losses(batch)
        for name, value in losses.items():
            self._records.setdefault(name, []).append(value)
        if self.target_kl is not None and losses["approx_kl"] > 1.5 * self.target_kl:
            if self.verbose >= 1:
                print(f"Early stopping at step {epoch} due to reaching max kl: {losses['approx_kl']:.2f}")
            return False
        gradients.backward()
        th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.all_interventions.step(self.policy.optimizer, NETWORKS)
        return True

    def _make_gradients(self) -> PPOGradients:
        """By hand where that is possible, otherwise autograd; asked anew by every ``train()``, as networks may change."""
        self._objective = PPOObjective(
            clip_range=self.clip_range(self._current_progress_remaining),  # type: ignore[operator]
            clip_range_vf=None if self.clip_range_vf is None else self.clip_range_vf(self._current_progress_remaining),  # type: ignore[operator]
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
            normalize_advantage=self.normalize_advantage,
        )
        if self._is_by_hand():
            return MlpPPOGradients(MlpActorCritic(self.policy, self._layers()), self._objective)
        return AutogradPPOGradients(self.policy, self._objective, self.all_interventions)

    def _is_by_hand(self) -> bool:
        return self.fused and not self.all_interventions.need_autograd() and is_mlp_actor_critic(self.policy)

    def _record_training(self) -> None:
        record = self.logger.record
        last_loss = self._records.pop("loss")[-1].item()
        for name, losses in self._records.items():
            record(f"train/{name}", th.stack(losses).mean().item())
        record("train/loss", last_loss)
        values, returns = self.rollout_buffer.values.flatten(), self.rollout_buffer.returns.flatten()
        record("train/explained_variance", explained_variance(values, returns))
        if hasattr(self.policy, "log_std"):
            record("train/std", th.exp(self.policy.log_std).mean().item())
        record("train/n_updates", self._n_updates, exclude="tensorboard")
        record("train/clip_range", self._objective.clip_range)
        if self._objective.clip_range_vf is not None:
            record("train/clip_range_vf", self._objective.clip_range_vf)

    def _end_learn(self) -> None:
        self._deliver()  # of a rollout that a callback stopped
        super()._end_learn()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *_OF_ONE_TRAINING]
