"""Neuron resets for agents that take no interventions: those of SB3 itself and of its contrib package."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback
from typing_extensions import override

from sb3_nbsp.interventions.neuron_reset import PeriodicReset
from sb3_nbsp.interventions.observations import has_observations
from sb3_nbsp.tasks.callback_tree import check_sees_every_step


class ResetCallback(BaseCallback):
    """
    Renews neurons of the acting network in an agent of SB3 or its contrib package: DQN (the setting of the ReDo paper),
    QR-DQN, TD3, DDPG, TQC, SAC, PPO, A2C. For agents of this package, use ``interventions=[...]`` instead.

    Neurons are reset at the end of a rollout in which a multiple of ``reset_frequency`` has been passed, before the updates
    on it. Target networks stay unchanged. The callback saves nothing with the agent, whose own step count it uses.

    :param reset: :class:`ReDo`, :class:`RandomReset` or :class:`CycleReset`; use one object per agent
    :param verbose: see SB3
    :raises TypeError: if it is none of these
    :raises ValueError: in training, if it is inside a callback that does not tell it of the ends of rollouts
    """

    def __init__(self, reset: PeriodicReset, verbose: int = 0) -> None:
        super().__init__(verbose)
        if not isinstance(reset, PeriodicReset):
            raise TypeError(f"reset must be a ReDo, a RandomReset or a CycleReset, not {reset!r}")
        self.reset = reset

    @override
    def _init_callback(self) -> None:
        check_sees_every_step(self)
        if hasattr(self.model, "all_interventions"):
            raise ValueError(
                f"{type(self.model).__name__} takes it without a callback: interventions=[{type(self.reset).__name__}(...)]"
            )
        if getattr(self.reset, "agent", None) is not self.model:
            self.reset.attach(self.model)

    @override
    def _on_training_start(self) -> None:
        check_sees_every_step(self)  # of those in a list, SB3 says only now where they are
        self.reset.on_learn_start(reset=True)

    @override
    def _on_step(self) -> bool:
        check_sees_every_step(self)  # a list for callback_on_new_best hears of nothing before
        return True

    @override
    def _on_rollout_end(self) -> None:
        if self.num_timesteps > getattr(self.model, "learning_starts", 0) and has_observations(self.model):
            self.reset.after_train()
