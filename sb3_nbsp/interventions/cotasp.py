"""CoTASP: the name of a task, by way of a sparse code, chooses the hidden units that play it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs, ReplayBufferSamples
from torch.distributions import Categorical, Distribution, Normal, kl_divergence
from typing_extensions import override

from sb3_nbsp.batches import apply, n_rows, take
from sb3_nbsp.checks import check_option, check_range, whole
from sb3_nbsp.interventions.base import Network, Phase
from sb3_nbsp.interventions.clonex import ClonEx
from sb3_nbsp.interventions.networks import actor_of
from sb3_nbsp.interventions.observations import as_seen, has_observations, phase_transitions
from sb3_nbsp.interventions.own_seeds import own_seed
from sb3_nbsp.interventions.sparse_coding import TaskDictionary, check_embeddings, embed_text, lasso
from sb3_nbsp.interventions.task_aware import TaskAware
from sb3_nbsp.interventions.unit_gates import free_parameters, make_gates, straight_through
from sb3_nbsp.messages import did_you_mean, warn
from sb3_nbsp.neurons.masks import MaskedStep

_DISTILL_STATES = 10_000


class CoTASP(TaskAware):
    r"""
    Continual task allocation by sparse prompting. Every task has an embedding e of its name and, for every hidden layer of
    the actor, a code :math:`\alpha`, which starts as the sparse code of e in the layer's dictionary. The units with
    :math:`\alpha > 0` play the task: the pre-activations of all others are zero. Gradient steps on the weights and on the
    codes alternate; weights between units of finished tasks stay fixed. When a phase ends, the dictionaries learn from
    its codes.

    In the warm-up of a task, the policy of an earlier task acts, drawn anew at each step. The critics learn as usual.

    Paper: Continual Task Allocation in Meta-Policy Network via Sparse Prompting (Yang et al., 2023). The agent is told its
    task.

    :param weight_steps: gradient steps on the weights, which alternate with those on the codes
    :param code_steps: gradient steps on the codes, which alternate with those on the weights
    :param lasso_weight: λ of :func:`~sb3_nbsp.interventions.sparse_coding.lasso`: the larger, the fewer units play a task
    :param distill_steps: gradient steps at the start of a phase that pull the free part of a new task's units towards random
        actions, in states of the previous phase; moments are cleared after them
    :param mask_log_std: protect the weights of the standard deviation as those of the mean. With False, all tasks share
        them, as in the authors' code, and only the mean action of an earlier task's policy is preserved
    :param task_embeddings: for each task, a vector of any length, the same for all; None: the names' words and trigrams,
        :func:`~sb3_nbsp.interventions.sparse_coding.embed_text`
    :param revisit: "reuse": a task that comes back has its units again, and only its codes learn; "new": every phase
        has units of its own, and a task is played with its latest ones
    :raises ValueError: if an option is out of its range
    """

    def __init__(
        self,
        weight_steps: int = 990,
        code_steps: int = 10,
        lasso_weight: float = 1e-3,
        distill_steps: int = 20_000,
        mask_log_std: bool = True,
        task_embeddings: Mapping[str, Sequence[float]] | None = None,
        revisit: Literal["reuse", "new"] = "reuse",
    ) -> None:
        super().__init__(revisit)
        self.weight_steps = whole("weight_steps", weight_steps, 1)
        self.code_steps = whole("code_steps", code_steps, 0)
        check_range("lasso_weight", lasso_weight, 0)
        check_option("mask_log_std", mask_log_std, (True, False))
        self.lasso_weight = lasso_weight
        self.distill_steps = whole("distill_steps", distill_steps, 0)
        self.mask_log_std = mask_log_std
        self.task_embeddings = None if task_embeddings is None else check_embeddings(task_embeddings)

    @override
    def attach(self, agent: BaseAlgorithm) -> None:
        super().attach(agent)
        for other in agent.all_interventions:  # type: ignore[attr-defined]
            if isinstance(other, ClonEx) and other.best_return_exploration:
                raise ValueError(
                    "best_return_exploration: the policies of earlier tasks are copies of the actor, which with CoTASP plays "
                    "the task of now in them: use False"
                )
        self._layers = actor_of(agent).layers
        self._check_layers()
        self._gates = make_gates(self._actor, self._layers)
        size = 384 if self.task_embeddings is None else len(next(iter(self.task_embeddings.values())))
        self._dictionaries = []  # by layer
        for index, layer in enumerate(self._layers):
            generator = th.Generator().manual_seed(own_seed(agent, index, purpose=1100))
            self._dictionaries.append(TaskDictionary(layer.n_neurons, size, generator))
        self._codes: list[list[th.Tensor]] = []  # by number of a task and layer, shape (units,)
        self._of_unseen: dict[str, list[th.Tensor]] = {}  # by task that is still to come, with the dictionaries of now
        self._used = [th.zeros(layer.n_neurons) for layer in self._layers]  # by layer, 1 for the units of finished tasks
        self._finished: list[int] = []  # numbers of tasks whose phases have ended
        self._position = 0  # gradient steps of the phase
        self._optimizer: th.optim.Adam | None = None  # of the current codes
        self._states: PyTorchObs | None = None  # of the phase that has just ended
        self._step: MaskedStep | None = None
        self._standstill = MaskedStep([(each, th.zeros(each.shape)) for each in self._actor.parameters()])

    def _check_layers(self) -> None:
        for layer in self._layers:
            if layer.norms:
                raise ValueError(
                    f"policy: CoTASP sets units to zero ahead of their activation, but {layer.name!r} is normalized in "
                    "between; leave the norm layer out"
                )
            shape = (1, layer.n_neurons, *[1] * (layer.linear.weight.dim() - 2))
            if layer.activation(th.zeros(shape, device=self.agent.device)).any():
                raise ValueError(
                    "policy_kwargs: a unit that does not play a task has to be off, but "
                    f"{type(layer.activation).__name__} of 0 is not 0; use another activation_fn, such as ReLU or tanh"
                )
            list(layer.outgoing())
        if not self._layers:
            raise ValueError("policy_kwargs: net_arch gives the actor no hidden layer whose units could be allocated")

    @property
    def masks(self) -> dict[str, dict[str, th.Tensor]]:
        """By task and layer, whether a unit plays the task, with its latest codes: shape (units,)."""
        return {task: self._named([code > 0 for code in self._codes[number]]) for task, number in self._numbers.items()}

    @property
    def used(self) -> dict[str, th.Tensor]:
        """By layer, whether a unit has played a finished task: shape (units,)."""
        return self._named([used > 0 for used in self._used])

    def _named(self, values: Sequence[th.Tensor]) -> dict[str, th.Tensor]:
        return {layer.name: value for layer, value in zip(self._layers, values, strict=True)}

    @property
    @override
    def knows_a_task(self) -> bool:
        return bool(self._finished)

    @override
    def play(self, task: str) -> None:
        number = self._numbers.get(task)
        if number == len(self._codes):
            self._codes.append(self._encode(task))
        if not self._codes:
            return  # it has not begun to learn
        if number is None and task not in self._of_unseen:
            self._of_unseen[task] = self._encode(task)
        self._open(self._of_unseen[task] if number is None else self._codes[number])

    def _open(self, codes: Sequence[th.Tensor]) -> None:
        for gate, layer, code in zip(self._gates, self._layers, codes, strict=True):
            gate.set_units(layer, code)

    def _embed(self, task: str) -> th.Tensor:
        if self.task_embeddings is None:
            return embed_text(task)
        if task not in self.task_embeddings:
            raise ValueError(f"task_embeddings has no {task!r}{did_you_mean(task, self.task_embeddings)}")
        vector = th.tensor(self.task_embeddings[task])
        return vector / vector.norm()

    def _encode(self, task: str) -> list[th.Tensor]:
        vector = self._embed(task)
        codes = [lasso(each.atoms, vector, self.lasso_weight) for each in self._dictionaries]
        for layer, code in zip(self._layers, codes, strict=True):
            if not (code > 0).any():
                raise ValueError(
                    f"lasso_weight={self.lasso_weight} leaves the task {task!r} none of the {layer.n_neurons} units of "
                    f"{layer.name!r}: use a smaller one, or a wider layer"
                )
        return codes

    @override
    def on_learn_start(self, reset: bool) -> None:
        super().on_learn_start(reset)
        for task in self._names:  # complain now of what task_embeddings lacks, and of layers that are too narrow
            if task in self._numbers:
                self._embed(task)
            elif task not in self._of_unseen:
                self._of_unseen[task] = self._encode(task)
        self._prepare_step()

    @override
    def on_phase_start(self, phase: Phase) -> None:
        n_known = len(self._codes)
        super().on_phase_start(phase)
        self._position, self._optimizer = 0, None
        self._prepare_step()
        states, self._states = self._states, None
        if len(self._codes) == n_known or self.distill_steps == 0 or not self._finished:
            return
        if states is None:
            warn(
                "CoTASP cannot distil: it has no states of the phase before. Its replay buffer was empty, or has not been "
                "loaded: load_replay_buffer(path)"
            )
        else:
            self._distill(states)

    @override
    def on_phase_end(self, phase: Phase) -> None:
        super().on_phase_end(phase)
        self._of_unseen.clear()
        codes, vector = self._codes[self._current], self._embed(phase.task)
        dictionaries = deepcopy(self._dictionaries)
        for index, (code, dictionary) in enumerate(zip(codes, dictionaries, strict=True)):
            self._used[index] = th.maximum(self._used[index], (code > 0).float())
            generator = th.Generator().manual_seed(own_seed(self.agent, phase, purpose=1200 + index))
            dictionary.learn(code, vector, generator)
        self._dictionaries = dictionaries  # all at once, so that after an interruption none learns the task twice
        self._finished = sorted({*self._finished, self._current})
        if self.distill_steps > 0 and has_observations(self.agent) and self.agent.phase_steps > 0:  # type: ignore[attr-defined]
            rows = phase_transitions(self.agent, _DISTILL_STATES, own_seed(self.agent, phase, purpose=1101))
            self._states = as_seen(self.agent, rows["observations"])
        self.record("cotasp/used_share", float(th.cat(self._used).mean()))

    @override
    def warmup_actions(self, observations: np.ndarray | dict[str, np.ndarray]) -> np.ndarray | None:
        if not self._finished:
            return None
        drawn = own_seed(self.agent, self.agent.num_timesteps, purpose=1102) % len(self._finished)
        self._open(self._codes[self._finished[drawn]])
        actions = self.agent.policy.predict(observations)[0]
        self._open(self._codes[self._current])
        return actions

    @override
    def on_batch(self, data: ReplayBufferSamples) -> None:
        for gate in self._gates:
            gate.gradient, gate.listens = None, self._is_code_step

    @override
    def before_step(self, network: Network) -> None:
        if network == "actor" and self._is_code_step:
            self._step_codes()

    @override
    def masked_step(self, network: Network) -> MaskedStep | None:
        if network != "actor":
            return None
        return self._standstill if self._is_code_step else self._step

    @override
    def after_step(self, network: Network) -> None:
        if network == "actor":
            self._position += 1
            for gate in self._gates:
                gate.listens = False

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "dictionaries": [{name: each.clone() for name, each in vars(part).items()} for part in self._dictionaries],
            "codes": [[code.clone() for code in codes] for codes in self._codes],
            "used": [used.clone() for used in self._used],
            "finished": list(self._finished),
            "position": self._position,
            "optimizer": {} if self._optimizer is None else deepcopy(self._optimizer.state_dict()),
        }

    @override
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for own, saved in zip(self._dictionaries, state["dictionaries"], strict=True):
            if own.atoms.shape != saved["atoms"].shape:
                raise ValueError(
                    f"task_embeddings: the vectors have {own.atoms.shape[1]} numbers, those that the saved dictionaries have "
                    f"learned from {saved['atoms'].shape[1]}"
                )
            vars(own).update({name: each.cpu().clone() for name, each in saved.items()})
        self._of_unseen.clear()  # the dictionaries are others
        self._codes = [[code.cpu().clone() for code in codes] for codes in state["codes"]]
        self._used = [used.cpu().clone() for used in state["used"]]
        self._finished, self._position, self._optimizer = list(state["finished"]), state["position"], None
        if state["optimizer"]:
            self._optimizer = th.optim.Adam(self._codes[self._current])
            self._optimizer.load_state_dict(deepcopy(state["optimizer"]))
        self._prepare_step()

    @override
    def memory_state(self) -> Any:
        return None if self._states is None else apply(lambda part: part.cpu(), self._states)

    @override
    def load_memory_state(self, state: Any) -> None:
        self._states = None if state is None else apply(lambda part: part.to(self.agent.device), state)

    @property
    def _is_code_step(self) -> bool:
        return self._position % (self.weight_steps + self.code_steps) >= self.weight_steps

    def _step_codes(self) -> None:
        """One step of Adam, with the actor's learning rate, on the codes of the current task."""
        codes = self._codes[self._current]
        if self._optimizer is None:
            self._optimizer = th.optim.Adam(codes)
        self._optimizer.param_groups[0]["lr"] = self._actor.optimizer.param_groups[0]["lr"]
        for code, gate in zip(codes, self._gates, strict=True):
            code.grad = None if gate.gradient is None else straight_through(gate.gradient.to(code), code)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._open(codes)

    def _prepare_step(self) -> None:
        """Mask the steps on the weights, from the first finished task on."""
        if not self._finished:
            self._step = None
            return
        free = free_parameters(self._actor, self._layers, self._used)
        if not self.mask_log_std and hasattr(self._actor, "log_std"):
            for parameter in self._actor.log_std.parameters():
                del free[parameter]
        self._step = MaskedStep(list(free.items()))

    def _distill(self, states: PyTorchObs) -> None:
        """Pull the policy, in the weights that are free, towards N(0, 1) ahead of tanh, or towards equal probabilities."""
        generator = th.Generator().manual_seed(own_seed(self.agent, self._current, purpose=1103))
        network, optimizer, masked = actor_of(self.agent), self._actor.optimizer, self._step
        assert masked is not None  # a phase has ended
        for _ in range(self.distill_steps):
            rows = th.randint(n_rows(states), (self.agent.batch_size,), generator=generator)
            (policy,) = network.distribution(take(states, rows))
            optimizer.zero_grad()
            kl_divergence(policy, _at_random(policy)).mean().backward()
            masked.before()
            optimizer.step()
            masked.after()
        optimizer.zero_grad()
        optimizer.state.clear()


def _at_random(policy: Distribution) -> Distribution:
    if isinstance(policy, Categorical):
        return Categorical(logits=th.zeros_like(policy.logits))
    assert isinstance(policy, Normal)
    return Normal(th.zeros_like(policy.mean), th.ones_like(policy.stddev))
