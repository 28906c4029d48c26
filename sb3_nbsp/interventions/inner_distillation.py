"""Inner distillation: after a reset, teach the rest of the policy what it did before (SBP, P3O)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.distributions import Distribution
from typing_extensions import override

from sb3_nbsp.batches import n_rows, split, take
from sb3_nbsp.checks import check_range, whole
from sb3_nbsp.interventions.base import Intervention
from sb3_nbsp.interventions.container import Interventions
from sb3_nbsp.interventions.networks import actor_of
from sb3_nbsp.interventions.observations import training_observations
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.policy_divergence import alpha_dkl, at_states, joined
from sb3_nbsp.interventions.students import make_student
from sb3_nbsp.neurons.layers import NeuronLayer

_FORWARD_BATCH = 512


class InnerDistillation(Intervention):
    r"""
    Whenever another intervention renews neurons of the actor, distil the policy from before the renewal (the teacher)
    into the policy after it (the student): P3O paper, Algorithms 1 and 2, equation 4. The incoming
    parameters of the renewed neurons are frozen during distillation; all others that belong to the actor alone learn, as far
    as other interventions do not hold them back (:meth:`Intervention.masked_step`).

    The states are those of the last rollout, or are drawn from the replay buffer. Distillation repeats epochs
    until the loss over all states is at most τ. It uses a separate Adam optimizer, so the agent's moments are not affected.

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning.

    :param distill_alpha: α of equation 4: weight of KL(teacher ‖ student), in [0, 1]
    :param distill_threshold: τ, the loss at which distillation ends
    :param max_distill_epochs: give up after this many epochs; training continues, and "distillation/at_cap" is recorded
    :param min_distill_epochs: at least this many epochs; the paper's algorithms make one even if the loss is already small
    :param distill_states: number of states to draw from a replay buffer
    :param distill_batch_size: number of states in a minibatch
    :param distill_learning_rate: learning rate of the distillation's own Adam
    :raises ValueError: if an option is out of its range
    """

    waits_for_renewals: ClassVar[bool] = True

    def __init__(
        self,
        distill_alpha: float = 0.4,
        distill_threshold: float = 0.01,
        max_distill_epochs: int = 100,
        min_distill_epochs: int = 1,
        distill_states: int = 8192,
        distill_batch_size: int = 256,
        distill_learning_rate: float = 3e-4,
    ) -> None:
        check_range("distill_alpha", distill_alpha, 0, 1)
        check_range("distill_threshold", distill_threshold, 0, infinite=True)
        max_distill_epochs = whole("max_distill_epochs", max_distill_epochs, 1)
        min_distill_epochs = whole("min_distill_epochs", min_distill_epochs, 0, max_distill_epochs)
        distill_states = whole("distill_states", distill_states, 1)
        distill_batch_size = whole("distill_batch_size", distill_batch_size, 1)
        check_range("distill_learning_rate", distill_learning_rate, 0, low_open=True)
        self.distill_alpha = distill_alpha
        self.distill_threshold = distill_threshold
        self.max_distill_epochs = max_distill_epochs
        self.min_distill_epochs = min_distill_epochs
        self.distill_states = distill_states
        self.distill_batch_size = distill_batch_size
        self.distill_learning_rate = distill_learning_rate

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        self._network = actor_of(agent)
        self._epochs = 0
        self._distillations = 0

    @override
    def on_learn_start(self, reset: bool) -> None:
        # Layers may have been exchanged since
        self._network = actor_of(self.agent)

    @property
    def epochs(self) -> int:
        """Epochs of distillation so far, over the life of the agent."""
        return self._epochs

    def before_renewal(self) -> None:
        """Keep what the teacher does in the states (Algorithm 1: "copy the weights to the temporary model")."""
        seed = own_seed(self.agent, self._distillations, purpose=300)
        self._states = training_observations(self.agent, self.distill_states, seed)
        self._was_training = self.agent.policy.training
        self.agent.policy.set_training_mode(False)
        self._student = make_student(self.agent, self._network)
        self._teacher = self._act(self._states)

    def after_renewal(self, renewed: Sequence[tuple[NeuronLayer, th.Tensor]]) -> None:
        """Distil (Algorithm 1, the inner loop)."""
        frozen = [(parameter, neurons.to(parameter.device)) for layer, neurons in renewed for _, parameter in layer.incoming()]
        optimizer = th.optim.Adam(self._network.parameters, lr=self.distill_learning_rate, fused=True)
        generator = th.Generator().manual_seed(own_seed(self.agent, self._distillations, purpose=301))
        epochs, loss_before, loss = self._train(optimizer, frozen, generator)
        optimizer.zero_grad()
        self.agent.policy.set_training_mode(self._was_training)  # neurons may be renewed in the midst of train()
        del self._states, self._teacher, self._student
        self._epochs += epochs
        self._distillations += 1
        self._record(epochs, loss_before, loss)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self._epochs, "distillations": self._distillations}

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epochs, self._distillations = state["epochs"], state["distillations"]

    def _train(
        self, optimizer: th.optim.Optimizer, frozen: Sequence[tuple[Any, th.Tensor]], generator: th.Generator
    ) -> tuple[int, float, float]:
        """Epochs until the loss is small enough: their number, and the loss before and after."""
        loss_before = loss = self._loss()
        epochs = 0
        while epochs < self.min_distill_epochs or (loss > self.distill_threshold and epochs < self.max_distill_epochs):
            for batch in th.randperm(n_rows(self._states), generator=generator).split(self.distill_batch_size):
                self._step(batch, optimizer, frozen)
            loss = self._loss()
            epochs += 1
        return epochs, loss_before, loss

    def _step(self, batch: th.Tensor, optimizer: th.optim.Optimizer, frozen: Sequence[tuple[Any, th.Tensor]]) -> None:
        self._student.set_gradients(take(self._states, batch), at_states(self._teacher, batch), self.distill_alpha)
        for parameter, neurons in frozen:
            if parameter.grad is not None:  # those of a shared features extractor may have none
                parameter.grad.index_fill_(0, neurons, 0.0)  # Adam leaves alone what has never had a gradient
        everyone = getattr(self.agent, "all_interventions", Interventions())  # agents of SB3 itself have none
        everyone.take_masked_step(optimizer, ["actor"])

    @th.no_grad()
    def _act(self, states: PyTorchObs) -> list[Distribution]:
        return joined([self._student.act(batch) for batch in split(states, _FORWARD_BATCH)])

    def _loss(self) -> float:
        """Of equation 4, averaged over the states."""
        return alpha_dkl(self._teacher, self._act(self._states), self.distill_alpha).mean().item()

    def _record(self, epochs: int, loss_before: float, loss: float) -> None:
        records = {"epochs": epochs, "total_epochs": self._epochs, "loss_before": loss_before, "loss": loss}
        for name, value in {**records, "at_cap": float(loss > self.distill_threshold)}.items():
            self.record(f"distillation/{name}", value)
