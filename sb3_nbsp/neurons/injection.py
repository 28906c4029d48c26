"""Heads that are injected beside a network's own one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch as th
from torch import nn


class InjectedBody(nn.Module):
    """
    The hidden layers of several heads that read the same features.

    :param own: the hidden layers of the network's own head; none for a head of one layer
    """

    def __init__(self, own: nn.Sequential) -> None:
        super().__init__()
        self.bodies = nn.ModuleList([own])

    def forward(self, features: th.Tensor) -> th.Tensor:
        """
        :param features: shape (batch, features)
        :return: what the heads' output layers read, shape (heads, batch, inputs)
        """
        return th.stack([body(features) for body in self.bodies])


class InjectedOutput(nn.Module):
    r"""
    The output layers of several heads, as one (Nikishin et al., 2023, section 4):

    .. math:: h_\theta(x) + \sum_k \left( h_{\theta'_{1,k}}(x) - h_{\theta'_{2,k}}(x) \right)

    Each difference is taken first: while both are equal it is 0, and the output is the same to the last bit.

    :param own: the output layer of the network's own head
    """

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.outputs = nn.ModuleList([own])

    def forward(self, hidden: th.Tensor) -> th.Tensor:
        """
        :param hidden: what :class:`InjectedBody` returns
        :return: shape (batch, outputs)
        """
        # Copies: to the last bit, a product depends on how its factors lie in memory
        values = [output(each.clone()) for output, each in zip(self.outputs, hidden.unbind(), strict=True)]
        total: th.Tensor = values[0]
        for added, subtracted in zip(values[1::2], values[2::2], strict=True):
            total = total + (added - subtracted)
        return total


class InjectableHead:
    """
    The last layers of a network, beside which new ones can be injected.

    :param net: the hidden layers, and with them the output layer if ``outputs`` is empty. It is changed in place
    :param n_hidden: number of hidden linear layers that belong to the head
    :param owner: the module that has the output layers
    :param outputs: names of these; none if the last layer of ``net`` is the output layer
    """

    def __init__(
        self, net: nn.Sequential, n_hidden: int, owner: nn.Module | None = None, outputs: tuple[str, ...] = ()
    ) -> None:
        if not any(isinstance(each, InjectedBody) for each in net):
            n_in_net = n_hidden + (not outputs)
            places = [index for index, each in enumerate(net) if isinstance(each, nn.Linear)]
            cut = places[-n_in_net] if n_in_net else len(net)
            layers = list(net)[cut:]
            del net[cut:]
            last = None if outputs else InjectedOutput(layers.pop())
            net.append(InjectedBody(nn.Sequential(*layers)))
            if last is not None:
                net.append(last)
            for name in outputs:
                assert owner is not None
                setattr(owner, name, InjectedOutput(getattr(owner, name)))
        body = next(each for each in net if isinstance(each, InjectedBody))
        ends = [getattr(owner, name).outputs for name in outputs] or [net[-1].outputs]
        # Lists of the same parts of all heads: hidden layers, output layers
        self.parts: list[nn.ModuleList] = [body.bodies, *ends]

    @property
    def n_injections(self) -> int:
        """How many pairs of heads have been injected."""
        return len(self.parts[0]) // 2

    def inject(self, initialize: Callable[[nn.Module], None]) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """
        Freeze all heads, and add a new one twice, with opposite signs: one learns, the other one is frozen.

        :param initialize: draws the layers of a module anew
        :return: pairs of a parameter that has learned until now and the one that learns in its place
        """
        replaced = []
        for part in self.parts:
            learned = part[-2] if len(part) > 1 else part[0]
            added = copy.deepcopy(learned)
            initialize(added)
            replaced += list(zip(learned.parameters(), added.parameters(), strict=True))
            part.requires_grad_(False)
            part.extend([added, copy.deepcopy(added).requires_grad_(False)])
        for before, _ in replaced:
            before.grad = None
        return replaced

    def follow(self, other: InjectableHead) -> None:
        """
        Add the heads that were injected last beside another one: those of a target network.

        :param other: the head beside which they were injected
        """
        for part, source in zip(self.parts, other.parts, strict=True):
            part.extend([copy.deepcopy(source[-2]), copy.deepcopy(source[-1])])
