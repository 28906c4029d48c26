"""What SAC and PPO that learn continually share: interventions, and how a gradient step is computed."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, TensorDict
from stable_baselines3.common.vec_env import VecEnv
from typing_extensions import Self

from sb3_nbsp.algorithms.options import check_names
from sb3_nbsp.algorithms.phases import PhasedAlgorithm
from sb3_nbsp.checks import check_option
from sb3_nbsp.fast.fused_optimizers import set_fused
from sb3_nbsp.fast.matmul_precision import PRECISIONS, MakeLayers, MatmulPrecision, layers_in, warn_if_without_effect
from sb3_nbsp.interventions import Intervention
from sb3_nbsp.interventions.container import check_interventions
from sb3_nbsp.interventions.plasticity_injection import COUNT, PlasticityInjection


class ContinualAgent(PhasedAlgorithm):
    """
    Stands in front of SB3's algorithm in a class's bases.

    :param policy: the name of a policy or its class, see SB3
    :param env: the environment, a task sequence or any other
    :param args: SB3's arguments in SB3's order, from ``learning_rate`` on
    :param interventions: changes to how the agent learns, in the order in which they act
    :param fused: compute the same in less time, up to rounding: use PyTorch's fused kernel if the optimizer has one, and
        compute gradients by hand if the policy is an MlpPolicy with ReLU or tanh and no intervention has a penalty. PPO's
        rollouts then compute values and log-probabilities all at once at their end, and callbacks see NaN until then. False
        is SB3 bit for bit
    :param matmul_precision: precision of the matrix products in gradient steps, PPO's values and distillations, named as in
        :func:`torch.set_float32_matmul_precision`. "medium" computes large products with factors in bfloat16, twice as fast
        on processors with instructions for it. It applies where gradients are computed by hand, and to convolutional networks
        of SAC for discrete actions; on a CUDA device it has PyTorch's meaning
    :param kwargs: SB3's arguments by name
    """

    settable: ClassVar[frozenset[str]] = frozenset({"fused", "matmul_precision"})

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str,
        *args: Any,
        interventions: Sequence[Intervention] = (),
        fused: bool = True,
        matmul_precision: MatmulPrecision = "highest",
        **kwargs: Any,
    ) -> None:
        check_names(type(self), kwargs, accepted=inspect.signature(self.sb3_class).parameters)
        check_interventions(interventions)
        self.interventions = tuple(interventions)
        self.fused = fused
        self.matmul_precision = matmul_precision
        self._check_options()
        self._init_phases()
        if kwargs.get("policy_kwargs") is not None:
            kwargs["policy_kwargs"] = {**kwargs["policy_kwargs"]}  # SB3 writes into it, and others may use it, too
        super().__init__(policy, env, *args, **kwargs)

    @abstractmethod
    def _optimizers(self) -> list[th.optim.Optimizer]:
        """All that train the agent."""

    @abstractmethod
    def _is_by_hand(self) -> bool:
        """Whether gradients are computed by hand at present; networks and interventions may change."""

    def _can_round(self) -> bool:
        """Whether ``matmul_precision`` matters to how gradients are computed on a processor."""
        return self._is_by_hand()

    def _layers(self) -> MakeLayers:
        return layers_in(self.matmul_precision, self.device)

    def _check_options(self) -> None:
        check_option("fused", self.fused, (True, False))
        check_option("matmul_precision", self.matmul_precision, PRECISIONS)

    def _option_was_set(self, name: str) -> None:
        if name == "fused":
            set_fused(self._optimizers(), self.fused)

    def _setup_model(self) -> None:
        self._check_options()  # those of a saved model may have been replaced
        super()._setup_model()  # type: ignore[safe-super]
        set_fused(self._optimizers(), self.fused)
        self._attach_interventions()
        if vars(self).get(COUNT) and not any(isinstance(each, PlasticityInjection) for each in self.all_interventions):
            raise ValueError(
                "The saved networks have heads that plasticity injection has added: load them as the class that saved them, "
                "or with interventions=[PlasticityInjection()]"
            )
        self._check_combination()

    def _check_combination(self) -> None:
        super()._check_combination()
        self.all_interventions.check_agent()

    def set_parameters(
        self, load_path_or_dict: str | TensorDict, exact_match: bool = True, device: th.device | str = "auto"
    ) -> None:
        """Load parameters, see :meth:`PersistentAlgorithm.set_parameters`."""
        super().set_parameters(load_path_or_dict, exact_match, device)
        set_fused(self._optimizers(), self.fused)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        self._check_combination()  # networks and optimizers may have been exchanged since
        set_fused(self._optimizers(), self.fused)
        warn_if_without_effect(self.matmul_precision, self.device, self._can_round(), [self.policy])
        return super()._setup_learn(*args, **kwargs)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = None,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """
        Train, see SB3. On a task sequence, training ends with the sequence if that comes first.

        :param total_timesteps: environment steps
        :param callback: see SB3
        :param log_interval: episodes between two records, or rollouts of PPO; None for SB3's 4 or 1
        :param tb_log_name: name of the run for TensorBoard; None for that of the class
        :param reset_num_timesteps: see SB3; pass False to continue
        :param progress_bar: show a progress bar
        :return: the agent
        :raises RuntimeError: if the process of an environment (``SubprocVecEnv``) has ended
        """
        if log_interval is None:
            log_interval = inspect.signature(self.sb3_class.learn).parameters["log_interval"].default
        name = tb_log_name or type(self).__name__
        try:
            super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)  # type: ignore[safe-super]
        except (EOFError, ConnectionError) as error:
            if (ended := _ended_processes(self.env)) == []:
                raise
            raise RuntimeError(
                f"The processes of environments {ended} have ended. Each has printed its own error, or was killed; with "
                "DummyVecEnv in place of SubprocVecEnv, the error itself stops the training"
            ) from error
        self._end_learn()
        return self

    def _end_learn(self) -> None:
        self._play_own_task()
        self._keep_progress()


def _ended_processes(env: VecEnv | None) -> list[int]:
    """Numbers of the environments whose processes have ended; one that has closed its pipe gets a moment for it."""
    processes: list[BaseProcess] = getattr(env.unwrapped, "processes", []) if env is not None else []
    ended = wait([process.sentinel for process in processes], timeout=5) if processes else []
    return [index for index, process in enumerate(processes) if process.sentinel in ended]
