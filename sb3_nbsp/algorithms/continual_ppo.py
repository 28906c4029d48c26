"""PPO with hooks for interventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from torch.nn import functional as F

from sb3_nbsp.algorithms.persistence import PersistentAlgorithm
from sb3_nbsp.algorithms.policies import PPOCnnPolicy, PPOMlpPolicy, PPOMultiInputPolicy
from sb3_nbsp.interventions import Intervention, Interventions
from sb3_nbsp.interventions.base import NETWORKS, check_interventions

SelfContinualPPO = TypeVar("SelfContinualPPO", bound="ContinualPPO")

# Attributes that live for one call of train()
_OF_ONE_TRAINING = ["_clip_range_now", "_clip_range_vf_now", "_records"]


class ContinualPPO(PersistentAlgorithm, PPO):
    """
    Proximal Policy Optimization that takes interventions. Without them it is SB3's PPO, bit for bit.

    Every parameter that is not listed here is SB3's: see :class:`stable_baselines3.PPO`.

    :param policy: "MlpPolicy", "CnnPolicy" or a subclass of ``ActorCriticPolicy``
    :param env: the environment
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param interventions: changes to how the agent learns, in the order in which they act
    :param kwargs: SB3's arguments by name
    :raises ValueError: if an option is out of its range
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": PPOMlpPolicy,
        "CnnPolicy": PPOCnnPolicy,
        "MultiInputPolicy": PPOMultiInputPolicy,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *args: Any,
        interventions: Sequence[Intervention] = (),
        **kwargs: Any,
    ) -> None:
        check_interventions(interventions)
        self.interventions = list(interventions)
        super().__init__(policy, env, *args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        self.hooks = Interventions(self._make_interventions())
        self.hooks.attach(self)

    def _make_interventions(self) -> list[Intervention]:
        """The interventions that act on this agent, in order; subclasses add those that make up a method."""
        return list(self.interventions)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> Any:
        reset_num_timesteps = self._begins_anew(reset_num_timesteps)
        reset = reset_num_timesteps or self._last_obs is None
        result = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        self.hooks.on_learn_start(reset)
        return result

    def train(self) -> None:
        """Epochs of PPO on the rollout, with the interventions' hooks in them (P3O, Algorithm 2)."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self._clip_range_now = self.clip_range(self._current_progress_remaining)  # type: ignore[operator]
        self._clip_range_vf_now: float | None = None
        if self.clip_range_vf is not None:
            self._clip_range_vf_now = self.clip_range_vf(self._current_progress_remaining)  # type: ignore[operator]
        self._records: dict[str, list[th.Tensor]] = {}

        for epoch in range(self.n_epochs + self.hooks.extra_epochs()):
            self._records["approx_kl"] = []  # SB3 records that of the last epoch
            continue_training = all(self._step(batch, epoch) for batch in self.rollout_buffer.get(self.batch_size))
            self._n_updates += 1
            if not continue_training:
                break

        self.hooks.after_train()
        self._record_training()

    def _step(self, batch: RolloutBufferSamples, epoch: int) -> bool:
        """
        One gradient step.

        :param batch: a minibatch of the rollout
        :param epoch: number of the epoch, from 0
        :return: False if the policy has moved too far (``target_kl``), in which case no step was made
        """
        loss, approx_kl = self._loss(batch)
        if self.target_kl is not None and approx_kl > 1.5 * self.target_kl:
            if self.verbose >= 1:
                print(f"Early stopping at step {epoch} due to reaching max kl: {approx_kl:.2f}")
            return False
        self.policy.optimizer.zero_grad()
        loss.backward()
        th.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        # One optimizer moves both networks
        for network in NETWORKS:
            self.hooks.before_step(network)
        self.policy.optimizer.step()
        for network in reversed(NETWORKS):
            self.hooks.after_step(network)
        return True

    def _loss(self, batch: RolloutBufferSamples) -> tuple[th.Tensor, th.Tensor]:
        """The clipped surrogate objective (P3O, equation 1), the value loss, the entropy bonus, and the penalties."""
        clip_range = self._clip_range_now
        # Actions of a discrete space are stored as floats
        actions = batch.actions.long().flatten() if isinstance(self.action_space, spaces.Discrete) else batch.actions
        values, log_prob, entropy = self.policy.evaluate_actions(batch.observations, actions)
        advantages = batch.advantages
        if self.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)

        log_ratio = log_prob - batch.old_log_prob
        ratio = th.exp(log_ratio)
        clipped = advantages * th.clamp(ratio, 1 - clip_range, 1 + clip_range)
        policy_loss = -th.min(advantages * ratio, clipped).mean()
        value_loss = F.mse_loss(batch.returns, self._clip_values(values.flatten(), batch.old_values))
        # Without a closed form of the entropy, an estimate
        entropy_loss = -th.mean(-log_prob) if entropy is None else -th.mean(entropy)
        loss = policy_loss + self.ent_coef * entropy_loss + self.vf_coef * value_loss
        if self.hooks.have_penalty():
            loss = loss + self.hooks.penalty("actor") + self.hooks.penalty("critic")

        with th.no_grad():
            approx_kl = th.mean((th.exp(log_ratio) - 1) - log_ratio)
            clip_fraction = th.mean((th.abs(ratio - 1) > clip_range).float())
        losses = {"policy_gradient_loss": policy_loss, "value_loss": value_loss, "entropy_loss": entropy_loss, "loss": loss}
        for name, value in {**losses, "approx_kl": approx_kl, "clip_fraction": clip_fraction}.items():
            self._records.setdefault(name, []).append(value.detach())
        return loss, approx_kl

    def _clip_values(self, values: th.Tensor, old_values: th.Tensor) -> th.Tensor:
        if self._clip_range_vf_now is None:
            return values
        change = th.clamp(values - old_values, -self._clip_range_vf_now, self._clip_range_vf_now)
        return old_values + change

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
        record("train/clip_range", self._clip_range_now)
        if self._clip_range_vf_now is not None:
            record("train/clip_range_vf", self._clip_range_vf_now)

    def learn(
        self: SelfContinualPPO,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfContinualPPO:
        """Train, see SB3. Without a ``tb_log_name``, the run has the name of the class in TensorBoard."""
        name = tb_log_name or type(self).__name__
        return super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *_OF_ONE_TRAINING]
