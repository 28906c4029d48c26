"""What SAC for continuous and for discrete actions share: one training loop, with phases and interventions."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, ClassVar

import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv, ReplayBufferSamples, Schedule, TensorDict
from stable_baselines3.common.utils import FloatSchedule, polyak_update
from stable_baselines3.sac.policies import SACPolicy
from torch import nn

from sb3_nbsp.algorithms.agent import ContinualAgent
from sb3_nbsp.algorithms.model_file import File
from sb3_nbsp.algorithms.replay_phases import PhasedReplay, reset_optimizer
from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.fast.captured_step import CapturedStep, Step, can_be_captured
from sb3_nbsp.fast.fused_optimizers import take_step
from sb3_nbsp.fast.matmul_precision import on_cuda
from sb3_nbsp.fast.sac_gradients import SACGradients
from sb3_nbsp.interventions.base import OFF_POLICY_HOOKS
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.messages import warn
from sb3_nbsp.neurons.module_kinds import state_beside_parameters
from sb3_nbsp.neurons.redraw import check_redrawable, redraw
from sb3_nbsp.random_states import drawing_from

# Type of device on which gradient steps are captured
CAPTURES_ON = "cuda"


class SoftActorCritic(ContinualAgent, PhasedReplay, SAC):
    """
    SAC that follows phases and takes interventions; subclasses define the losses.

    :param qf_learning_rate: learning rate of the critics; None for ``learning_rate``
    :param clear_replay_buffer: empty D when a phase starts
    :param phase_learning_starts: steps of uniform random actions, without updates, at the start of every phase
        other than the first, if its task is new; None for ``learning_starts``
    :param reset_optimizers: clear the optimizers' moments when a new task starts
    :param reset_critics: re-initialize the critics and their targets, and clear their optimizer's moments, when a new task
        starts
    :param reset_ent_coef: set a learned entropy coefficient back to its initial value when a new task starts
    :param known_task_threshold: every phase other than the first begins with a probe, in which the policy plays without
        learning. If this share of ``probe_episodes`` succeeds, the task is known: the policy itself acts in the warm-up, and
        nothing is reset. Otherwise, or if the task does not report success, it is new. None: no probe, every task is new
    :param probe_episodes: maximum number of probe episodes; the probe ends early when its outcome is certain
    :param cuda_graph: on a CUDA device, run a gradient step by hand (with ``fused``) as one CUDA graph. Tested only with a
        stand-in for graphs, not on a GPU
    :raises ValueError: if an option is out of its range
    :raises TypeError: if there is no option of a name
    """

    sb3_class: ClassVar = SAC
    other_actions: ClassVar[str]  # which classes are for those that this one does not support
    called_hooks: ClassVar[frozenset[str]] = OFF_POLICY_HOOKS
    _moves_targets = False  # whether the target critics move after the gradient step under way
    settable: ClassVar[frozenset[str]] = ContinualAgent.settable | {
        "qf_learning_rate",
        "clear_replay_buffer",
        "phase_learning_starts",
        "reset_optimizers",
        "reset_critics",
        "reset_ent_coef",
        "known_task_threshold",
        "probe_episodes",
        "cuda_graph",
    }

    def __init__(
        self,
        policy: str | type[SACPolicy],
        env: GymEnv | str,
        *args: Any,
        qf_learning_rate: float | Schedule | None = None,
        clear_replay_buffer: bool = True,
        phase_learning_starts: int | None = None,
        reset_optimizers: bool = False,
        reset_critics: bool = False,
        reset_ent_coef: bool = False,
        known_task_threshold: float | None = None,
        probe_episodes: int = 10,
        cuda_graph: bool = False,
        **kwargs: Any,
    ) -> None:
        self.qf_learning_rate = qf_learning_rate
        self.clear_replay_buffer = clear_replay_buffer
        self.phase_learning_starts = phase_learning_starts
        self.reset_optimizers = reset_optimizers
        self.reset_critics = reset_critics
        self.reset_ent_coef = reset_ent_coef
        self.known_task_threshold = known_task_threshold
        self.probe_episodes = probe_episodes
        self.cuda_graph = cuda_graph
        # What a captured step holds on to, and the step
        self._captured: tuple[list[Any], CapturedStep] | None = None
        try:
            super().__init__(policy, env, *args, **kwargs)
        except AssertionError as error:
            if "as action spaces" in str(error):
                raise AssertionError(f"{error}: {self.other_actions}") from error
            raise

    def _check_options(self) -> None:
        super()._check_options()
        if self.qf_learning_rate is not None and not callable(self.qf_learning_rate):
            check_range("qf_learning_rate", self.qf_learning_rate, 0)
        if self.phase_learning_starts is not None:
            whole("phase_learning_starts", self.phase_learning_starts, 0)
        if self.known_task_threshold is not None:
            check_range("known_task_threshold", self.known_task_threshold, 0, 1, low_open=True)
        whole("probe_episodes", self.probe_episodes, 1)
        for name in ("clear_replay_buffer", "reset_optimizers", "reset_critics", "reset_ent_coef", "cuda_graph"):
            check_option(name, getattr(self, name), (True, False))

    def _check_combination(self) -> None:
        super()._check_combination()
        if self.reset_critics:
            check_redrawable(self._critics_alone())

    def _option_was_set(self, name: str) -> None:
        self._captured = None
        super()._option_was_set(name)

    def _setup_model(self) -> None:
        for name in ("batch_size", "target_update_interval"):
            setattr(self, name, whole(name, getattr(self, name), 1))
        super()._setup_model()
        # SB3's are those of batch norms: a target without the state of spectral_norm is another function of its weights
        self.batch_norm_stats = state_beside_parameters(self.critic)
        self.batch_norm_stats_target = state_beside_parameters(self.critic_target)
        self._initial_log_ent_coef = None if self.log_ent_coef is None else self.log_ent_coef.item()

    def _optimizers(self) -> list[th.optim.Optimizer]:
        optimizers = [self.actor.optimizer, self.critic.optimizer]
        return optimizers if self.ent_coef_optimizer is None else [*optimizers, self.ent_coef_optimizer]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_captured": None}

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """
        Load parameters, see :meth:`PersistentAlgorithm.set_parameters`.

        :raises ValueError: if the entropy coefficient is learned in one of them and fixed in the other
        """
        self._captured = None
        if exact_match:
            if isinstance(load_path_or_dict, dict):
                self._check_ent_coef(load_path_or_dict)
            else:
                self._check_ent_coef(load_from_zip_file(load_path_or_dict, load_data=False, device="cpu")[1])
        super().set_parameters(load_path_or_dict, exact_match, device)

    def _check_ent_coef(self, parameters: TensorDict) -> None:
        is_learned, was_learned = self.ent_coef_optimizer is not None, "ent_coef_optimizer" in parameters
        if is_learned != was_learned:
            kinds = ["fixed", "learned"]
            raise ValueError(
                f"ent_coef: the saved entropy coefficient is {kinds[was_learned]}, that of this agent is {kinds[is_learned]} "
                f"(ent_coef={self.ent_coef!r}). Load the model without ent_coef"
            )

    def _end_loading(self, path: File, device: th.device | str, replaced: set[str]) -> None:
        if "ent_coef" in replaced and self.ent_coef_optimizer is None:
            # A fixed coefficient is among the parameters of a file, which come after the options that load() was given
            self.ent_coef_tensor = th.tensor(float(self.ent_coef), device=self.device)
        elif "ent_coef" in replaced and not self.reset_ent_coef:
            assert self.log_ent_coef is not None
            warn(
                f"ent_coef={self.ent_coef!r}: the learned entropy coefficient goes on from the saved one, "
                f"{self.log_ent_coef.exp().item():.3g}; its initial value matters with reset_ent_coef=True only"
            )
        super()._end_loading(path, device, replaced)

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """
        Gradient steps of SAC with the interventions' hooks in them (NBSP, Algorithm 2, lines 8 to 17).

        :param gradient_steps: number of gradient steps
        :param batch_size: transitions per gradient step
        """
        gradient_steps = self._still_due(gradient_steps)
        if gradient_steps <= 0 or self._is_warming_up():
            return
        assert self.replay_buffer is not None
        self.policy.set_training_mode(True)
        self._update_learning_rates()
        step = self._make_step()
        records: dict[str, list[th.Tensor]] = {}

        for gradient_step in range(gradient_steps):
            # Line 9: every k-th batch may come from the memory of earlier tasks
            source = self.all_interventions.replay_source(self._n_updates + gradient_step + 1) or self.replay_buffer
            data = source.sample(batch_size, env=self._vec_normalize_env)
            update_targets = self._targets_are_due(gradient_step, gradient_steps)
            with on_cuda(self.matmul_precision, self.device):
                recorded = step(data, update_targets)
            for name, value in recorded.items():
                records.setdefault(name, []).append(value)

        self._n_updates += gradient_steps
        self.all_interventions.after_train()
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, values in records.items():
            self.logger.record(f"train/{name}", th.stack(values).mean().item())

    def _gradient_step(self, gradients: SACGradients, data: ReplayBufferSamples, update_targets: bool) -> dict[str, th.Tensor]:
        """
        One gradient step of SAC with the interventions' hooks in it (NBSP, Algorithm 2, lines 12 to 16).

        :param gradients: gradients of the losses
        :param data: the batch
        :param update_targets: whether the target critics move
        :return: what to record, by name, each of shape () or (1,)
        """
        self._moves_targets = update_targets
        self.all_interventions.on_batch(data)
        if self.use_sde:
            self.actor.reset_noise()
        log_prob = gradients.sample_actions(data)

        # Line 15: the entropy coefficient; what the memory holds has its own
        ent_coef: th.Tensor | None = getattr(data, "ent_coefs", None)
        records: dict[str, th.Tensor] = {}
        if ent_coef is None:
            ent_coef = self._update_ent_coef(gradients, log_prob, records)

        # Line 12: the target value; with n-step returns, gamma to the number of steps
        discounts = data.discounts if data.discounts is not None else self.gamma
        next_q_values = gradients.next_values(data, ent_coef)
        target_q_values = data.rewards + (1 - data.dones) * discounts * next_q_values

        # Line 13: the critics
        records["critic_loss"] = gradients.critic_loss(data, target_q_values)
        self.all_interventions.step(self.critic.optimizer, ["critic"])

        # Line 14: the actor (the paper prints gradient ascent, but this is a loss)
        records["actor_loss"] = gradients.actor_loss(data, ent_coef)
        self.all_interventions.step(self.actor.optimizer, ["actor"])

        # Line 16: the target critics
        if update_targets:
            self._update_targets()
        return records

    def _make_step(self) -> Step:
        """The step for this ``train()``. Where it can be a CUDA graph, it is captured once for a phase."""
        if not self._can_capture():
            return partial(self._gradient_step, self._make_gradients())
        holds = [self.gamma, self.tau, self.target_entropy, *(each.data_ptr() for each in self.policy.parameters())]
        if self._captured is None or self._captured[0] != holds:
            step = partial(self._gradient_step, self._make_gradients())
            self._captured = holds, CapturedStep(step, self._optimizers())
        return self._captured[1]

    def _can_capture(self) -> bool:
        is_captured = self.cuda_graph and self.fused and self.device.type == CAPTURES_ON
        return is_captured and self._is_by_hand() and self.all_interventions.capturable and can_be_captured(self._optimizers())

    @abstractmethod
    def _make_gradients(self) -> SACGradients:
        """The losses and how their gradients are computed; asked anew by every ``train()``, as networks may change."""

    def _targets_are_due(self, gradient_step: int, gradient_steps: int) -> bool:
        """Whether the target critics move after this gradient step: as in SB3, but counted over the agent's life."""
        return (self._n_updates + gradient_step) % self.target_update_interval == 0

    def _update_ent_coef(self, gradients: SACGradients, log_prob: th.Tensor, records: dict[str, th.Tensor]) -> th.Tensor:
        """
        One step of the entropy coefficient, if it is learned.

        :param gradients: gradients of the loss
        :param log_prob: log-probabilities of the actor's actions, shape (batch, 1); discrete actions: of all, (batch, actions)
        :param records: gets the coefficient, its loss and the policy's entropy
        :return: the coefficient before the step, shape () or (1,)
        """
        if self.ent_coef_optimizer is None or self.log_ent_coef is None:
            ent_coef = self.ent_coef_tensor
        else:
            ent_coef = th.exp(self.log_ent_coef.detach())
            assert isinstance(self.target_entropy, float)
            records["ent_coef_loss"] = gradients.ent_coef_loss(self.log_ent_coef, log_prob, self.target_entropy)
            take_step(self.ent_coef_optimizer)
        records["ent_coef"] = ent_coef
        records["entropy"] = self._entropy(log_prob)  # to be compared with the target entropy
        return ent_coef

    @staticmethod
    def _entropy(log_prob: th.Tensor) -> th.Tensor:
        """
        The policy's mean entropy in the states of a batch, estimated from one action each.

        :param log_prob: log-probabilities of the actions, shape (batch, 1)
        :return: in nats, shape ()
        """
        return -log_prob.detach().mean()

    def _update_targets(self) -> None:
        """Move the target critics towards the critics by the share tau."""
        parameters: list[th.Tensor] = list(self.critic.parameters())
        target_parameters: list[th.Tensor] = list(self.critic_target.parameters())
        if self.fused:
            with th.no_grad():
                th._foreach_lerp_(target_parameters, parameters, self.tau)
        else:
            polyak_update(parameters, target_parameters, self.tau)
        polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

    def _update_learning_rates(self) -> None:
        self._update_learning_rate(self._optimizers())
        if self.qf_learning_rate is not None:
            qf_learning_rate = FloatSchedule(self.qf_learning_rate)(self._current_progress_remaining)
            for group in self.critic.optimizer.param_groups:
                group["lr"] = qf_learning_rate
            self.logger.record("train/qf_learning_rate", qf_learning_rate)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        self._captured = None  # networks and optimizers may have been exchanged since
        return super()._setup_learn(*args, **kwargs)

    def _end_phase(self) -> None:
        super()._end_phase()
        self._captured = None  # the masks are new

    def _reset_for_phase(self) -> None:
        self._captured = None
        optimizers = [self.actor.optimizer, self.critic.optimizer] if self.reset_optimizers else []
        if self.ent_coef_optimizer is not None and (self.reset_optimizers or self.reset_ent_coef):
            optimizers.append(self.ent_coef_optimizer)
        for optimizer in optimizers:
            reset_optimizer(optimizer)
        if self.reset_critics:
            self._renew_critics()
        if self.reset_ent_coef and self.log_ent_coef is not None:
            assert self._initial_log_ent_coef is not None
            self.log_ent_coef.data.fill_(self._initial_log_ent_coef)

    def _renew_critics(self) -> None:
        """Draw the critics again, from a generator of this reset's own; a features extractor that the actor uses stays."""
        drawn = self._critics_alone()
        with drawing_from(own_seed(self, self.phase, purpose=10), self.device):
            redraw(drawn, self._initialize)
        self.critic_target.load_state_dict(self.critic.state_dict())
        reset_optimizer(self.critic.optimizer)
        self.all_interventions.after_redraw(list(drawn.parameters()))

    def _critics_alone(self) -> nn.Module:
        """The critics, without what they share with the actor."""
        return nn.ModuleList(self.critic.q_networks) if self.policy.share_features_extractor else self.critic

    def _initialize(self, network: nn.Module) -> None:
        """Initialize a network in the policy's own way, if that is another than PyTorch's."""

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_initial_log_ent_coef", "_captured", "_moves_targets"]
