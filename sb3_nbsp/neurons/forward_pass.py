"""
In which order the modules of a network are called, and whether each reads what the one before it returns.

Where a class has a ``forward()`` of its own, the order of definition does not tell: ``forward()`` may pass modules over, add
their outputs up or call functions between them. So a forward pass is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch as th
from torch import nn

from sb3_nbsp.neurons.module_kinds import is_weighted

# Runs the network once in evaluation mode, on a few observations that differ; what else it reads is the same for all of them
Run = Callable[[], object]
Change = Callable[[th.Tensor], th.Tensor]


@dataclass
class Call:
    """
    One call of a module.

    :param name: name of the module
    :param module: the module
    :param inputs: what it read, shape (batch, ...); None if that is not known, or no tensor
    :param output: what it returned, shape (batch, ...); None likewise
    :param reads: indices of the earlier calls whose output, untouched, it was given
    """

    name: str
    module: nn.Module
    inputs: th.Tensor | None = None
    output: th.Tensor | None = None
    reads: frozenset[int] = frozenset()


class DefinedOrder:
    """
    The order of definition, for networks whose modules are known to be called in it.

    :param leaves: (name, module) pairs
    """

    def __init__(self, leaves: Sequence[tuple[str, nn.Module]]) -> None:
        self.calls = [Call(name, module) for name, module in leaves]

    def n_other_inputs(self, before: int, after: int, n_units: int) -> int | None:
        """See :meth:`WatchedPass.n_other_inputs`: none."""
        return 0

    def begins_anew(self, index: int) -> bool:
        """See :meth:`WatchedPass.begins_anew`: nothing does."""
        return False

    def places(self, parts: Sequence[int], after: int) -> list[tuple[int, int]] | None:
        """See :meth:`WatchedPass.places`: not known."""
        return None


class WatchedPass(DefinedOrder):
    """
    The order in which a forward pass calls its modules.

    :param leaves: (name, module) pairs, to be watched
    :param run: the forward pass
    """

    def __init__(self, leaves: Sequence[tuple[str, nn.Module]], run: Run) -> None:
        self._leaves, self._run = {id(module): (name, module) for name, module in reversed(leaves)}, run
        self.calls = self._watch()

    def n_other_inputs(self, before: int, after: int, n_units: int) -> int | None:
        """
        Whether a module reads the units that an earlier one returns, each where it was, whatever has become of its numbers in
        between, and nothing else of the network.

        :param before: index of the earlier call
        :param after: index of the call that reads it
        :param n_units: number of units; each has equally many of the outputs, side by side
        :return: number of inputs that the module reads after them and that do not depend on the network; None if it reads
            anything else
        """
        if before in self.calls[after].reads:
            return 0
        output, inputs = self.calls[before].output, self.calls[after].inputs
        if output is not None and inputs is not None and output[:1].numel() % n_units == 0:
            n_others = inputs[:1].numel() - output[:1].numel()
            if n_others == 0 or (n_others > 0 and isinstance(self.calls[after].module, nn.Linear)):
                if self._hands_on(before, after):
                    return n_others
            if inputs[:1].numel() % n_units == 0 and self._keeps_apart(before, after, n_units):
                return 0
        return None

    def begins_anew(self, index: int) -> bool:
        """
        Whether a module reads nothing of what the network has computed so far, as the first one of a parallel part does.

        :param index: index of the call
        """
        inputs, changed = self.calls[index].inputs, self._watch_with_noise(self._weighted)[index].inputs
        return inputs is not None and changed is not None and _is_same(changed, inputs)

    def places(self, parts: Sequence[int], after: int) -> list[tuple[int, int]] | None:
        """
        Where a module reads the outputs of parallel parts, which it is given side by side: a linear layer, on vectors.

        :param parts: indices of the calls that return them
        :param after: index of the call that reads them
        :return: for each part, how many inputs come before it and how many there are beside it; None if the module reads
            anything else of the network
        """
        undisturbed, reader, found = self.calls[after].inputs, self.calls[after].module, []
        if undisturbed is None or not isinstance(reader, nn.Linear) or undisturbed[:1].numel() != reader.in_features:
            return None
        rest = th.ones(undisturbed[:1].numel(), dtype=th.bool)
        for part in parts:
            calls = self._watch_with_noise([part])
            output, differs = calls[part].output, _columns_that_differ(calls[after].inputs, undisturbed)
            if output is None or not differs.any():
                return None
            first = int(differs.nonzero()[0])
            place = slice(first, first + output[:1].numel())
            if not _is_same(calls[after].inputs.flatten(1)[:, place], output.flatten(1)):  # type: ignore[union-attr]
                return None
            if differs[:first].any() or differs[place.stop :].any():
                return None
            found.append((first, len(rest) - output[:1].numel()))
            rest[place] = False
        others = _columns_that_differ(self._watch_with_noise(self._weighted)[after].inputs, undisturbed)
        return None if others[rest].any() else found

    @property
    def _weighted(self) -> list[int]:
        return [index for index, call in enumerate(self.calls) if is_weighted(call.module)]

    def _watch_with_noise(self, changed: Collection[int]) -> list[Call]:
        """The calls, with noise for what some of them return; nothing is known of them if there are more or fewer of them."""
        generator = th.Generator().manual_seed(0)
        calls = self._watch(changed, lambda output: th.randn(output.shape, generator=generator).to(output))
        return calls if len(calls) == len(self.calls) else [Call(call.name, call.module) for call in self.calls]

    def _hands_on(self, before: int, after: int) -> bool:
        """With any other output of the earlier call, the later one reads just this, and then what is the same for all."""
        calls = self._watch_with_noise([before])
        output, inputs = calls[before].output, calls[after].inputs
        if output is None or inputs is None:
            return False
        output, inputs = _units(output, 1).flatten(1), _units(inputs, 1).flatten(1)
        return _is_same(inputs[:, : output.shape[1]], output) and _is_constant(inputs[:, output.shape[1] :])

    def _keeps_apart(self, before: int, after: int, n_units: int) -> bool:
        """
        Put something else in the place of some units, the same for the whole batch. What is read of these must then be the
        same for the whole batch, and what is read of the others must be as it was. Any two units are told apart by one of
        the choices.
        """
        undisturbed = self.calls[after].inputs
        assert undisturbed is not None
        generator = th.Generator().manual_seed(0)
        for chosen in _choices(n_units):
            calls = self._watch([before], partial(_replace, chosen, generator))
            disturbed = calls[after].inputs if len(calls) == len(self.calls) else None
            if disturbed is None or disturbed.shape != undisturbed.shape:
                return False
            seen, expected, where = _units(disturbed, n_units), _units(undisturbed, n_units), chosen.to(disturbed.device)
            if not (_is_constant(seen[:, where]) and _is_same(seen[:, ~where], expected[:, ~where])):
                return False
        return True

    def _watch(self, changed: Collection[int] = (), change: Change = lambda output: output) -> list[Call]:
        """
        :param changed: indices of calls that are to return something else
        :param change: what they are to return, given what they would
        :return: the calls, in order
        """
        calls: list[Call] = []
        outputs: list[tuple[object, int]] = []  # and how often each had been written into

        def before_call(module: nn.Module, args: tuple[object, ...]) -> None:
            # Copies, as what follows may write into them
            given = args[0] if args else None
            reads = frozenset(i for i, (each, version) in enumerate(outputs) if each is given and _version(each) == version)
            opened.append(Call(self._leaves[id(module)][0], module, _copy(given), None, reads))

        def after_call(_module: nn.Module, _args: object, output: object) -> object:
            call = opened.pop()
            if len(calls) in changed and isinstance(output, th.Tensor):
                output = change(output)
            call.output = _copy(output)
            calls.append(call)
            outputs.append((output, _version(output)))
            return output

        opened: list[Call] = []
        modules = [module for _, module in self._leaves.values()]
        handles = [each.register_forward_pre_hook(before_call) for each in modules]
        handles += [each.register_forward_hook(after_call) for each in modules]
        try:
            with th.no_grad(), th.compiler.set_stance("force_eager"):  # compiled networks may never call a hook
                self._run()
        finally:
            for handle in handles:
                handle.remove()
        return calls


def _copy(value: object) -> th.Tensor | None:
    return value.detach().clone() if isinstance(value, th.Tensor) and value.dim() > 0 else None


def _version(value: object) -> int:
    return value._version if isinstance(value, th.Tensor) else 0


def _units(tensor: th.Tensor, n_units: int) -> th.Tensor:
    """Shape (batch, units, numbers of each)."""
    return tensor.reshape(len(tensor), n_units, -1)


def _choices(n_units: int) -> Iterator[th.Tensor]:
    """All units; then those whose number has a certain bit, and those whose number has not."""
    numbers = th.arange(n_units)
    yield numbers >= 0
    for bit in range((n_units - 1).bit_length()):
        has_bit = (numbers >> bit & 1).bool()
        yield from (has_bit, ~has_bit)


def _replace(chosen: th.Tensor, generator: th.Generator, output: th.Tensor) -> th.Tensor:
    units = _units(output, len(chosen))
    noise = th.randn(units.shape[1:], generator=generator).to(units)
    return th.where(chosen.to(units.device)[:, None], noise, units).reshape(output.shape)


def _is_same(first: th.Tensor, second: th.Tensor) -> bool:
    return first.shape == second.shape and th.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True)


def _columns_that_differ(first: th.Tensor | None, second: th.Tensor) -> th.Tensor:
    """Which numbers of a row, shape (numbers,); all, if the shapes differ."""
    if first is None or first.shape != second.shape:
        return th.ones(second[:1].numel(), dtype=th.bool)
    same: th.Tensor = th.isclose(first.flatten(1), second.flatten(1), rtol=1e-4, atol=1e-6, equal_nan=True)
    return ~same.all(0).cpu()


def _is_constant(rows: th.Tensor) -> bool:
    return _is_same(rows, rows[:1].expand_as(rows))
