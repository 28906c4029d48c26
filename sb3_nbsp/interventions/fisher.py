"""The diagonal of the Fisher information matrix, exactly: from the gradient of each output in each state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.distributions import Categorical, Distribution, Normal
from torch.nn import functional as F

from sb3_nbsp.batches import n_rows, split

# Runs a network on a batch: pairs of outputs and their weights, both of shape (states, outputs)
Outputs = Callable[..., list[tuple[th.Tensor, th.Tensor]]]
# What passes through a layer in a forward pass: its inputs and its outputs
Signals = dict[nn.Module, list[tuple[th.Tensor, th.Tensor]]]

# Added to a variance that something is divided by, as in Continual World
VARIANCE_FLOOR = 1e-6
# States at a time: of convolutions, the gradient in each state is in memory
_CHUNK = 64


def policy_outputs(distributions: Sequence[Distribution]) -> list[tuple[th.Tensor, th.Tensor]]:
    r"""
    Outputs y and weights w of which the Fisher information of a policy is made:
    :math:`F = E_s \sum_k w_k (\partial y_k / \partial \theta)^2`.

    .. math::
        F &= E_s \sum_k \left[ \frac{(\partial \mu_k / \partial \theta)^2}{\sigma_k^2}
        + 2 \left( \frac{\partial \log \sigma_k}{\partial \theta} \right)^2 \right] \quad \text{(Gaussian)} \\
        F &= E_s \sum_a \pi(a \mid s) \left( \frac{\partial \log \pi(a \mid s)}{\partial \theta} \right)^2
        \quad \text{(categorical)}

    The Gaussian is the one before a tanh, which changes no Fisher information. To :math:`\sigma^2`,
    :data:`VARIANCE_FLOOR` is added.

    :param distributions: of the parts of the action; their entries are the states
    :return: pairs (y, w), both of shape (states, outputs), w without gradient
    :raises ValueError: if a distribution is of another kind
    """
    pairs = []
    for each in distributions:
        if isinstance(each, Normal):
            pairs.append((each.loc, 1 / (each.variance.detach() + VARIANCE_FLOOR)))
            pairs.append((each.scale.log(), th.full_like(each.scale, 2.0).detach()))
        elif isinstance(each, Categorical):
            pairs.append((each.logits, each.probs.detach()))  # the logits are normalized: log π
        else:
            raise ValueError(f"action_space: the Fisher information of {type(each).__name__} actions is not known")
    return pairs


def diagonal_fisher(
    network: nn.Module, parameters: Sequence[nn.Parameter], outputs: Outputs, *batch: PyTorchObs
) -> list[th.Tensor]:
    r"""
    .. math:: F_i = \frac1B \sum_b \sum_k w_k(b) \left( \frac{\partial y_k(b)}{\partial \theta_i} \right)^2

    One backward pass per output. A linear layer with inputs x and gradients :math:`\delta_k = \partial y_k / \partial z` has
    :math:`(\partial y_k / \partial W_{ij})^2 = \delta_{k,i}^2 x_j^2`, so that matrix products of squares sum over the
    states; of a convolution, the gradient in each state sums over its positions before it is squared. Networks with
    other modules that learn, or with a layer that is run twice, are differentiated state by state, which takes longer.

    :param network: in evaluation mode
    :param parameters: what to differentiate by, all parameters of the network
    :param outputs: runs the network: the arguments are a part of ``batch``, the result as that of :func:`policy_outputs`
    :param batch: inputs of the network, each of shape (states, ...)
    :return: by parameter F, of its shape; in single precision or better
    """
    layers = _plain_layers(network, parameters)
    parts = zip(*(split(each, _CHUNK) for each in batch), strict=True)
    sums = {parameter: th.zeros_like(parameter) for parameter in parameters}
    with th.enable_grad():
        for part in parts:
            if not (layers and _add_squares(layers, sums, outputs, part)):
                _add_squares_of_each(sums, outputs, part)
    return [each / n_rows(batch[0]) for each in sums.values()]


def _plain_layers(network: nn.Module, parameters: Sequence[nn.Parameter]) -> list[nn.Linear | nn.Conv2d]:
    """The layers whose parameters these are; none if some belong to a module of another kind, or to two."""
    layers = [each for each in network.modules() if type(each) is nn.Linear or _is_plain_convolution(each)]
    own = [id(each) for layer in layers for each in (layer.weight, layer.bias) if isinstance(each, nn.Parameter)]
    return layers if len({*own}) == len(own) and {*map(id, parameters)} <= {*own} else []  # type: ignore[return-value]


def _is_plain_convolution(module: nn.Module) -> bool:
    """One that :func:`torch.nn.functional.unfold` turns into a linear layer."""
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


@contextmanager
def _watched(layers: Sequence[nn.Module]) -> Iterator[Signals]:
    signals: Signals = {layer: [] for layer in layers}

    def keep(layer: nn.Module, inputs: tuple[th.Tensor, ...], output: th.Tensor) -> th.Tensor:
        signals[layer].append((inputs[0].detach(), output))
        return output.clone()  # an activation function may work in place

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield signals
    finally:
        for hook in hooks:
            hook.remove()


def _add_squares(
    layers: Sequence[nn.Linear | nn.Conv2d],
    sums: dict[nn.Parameter, th.Tensor],
    outputs: Outputs,
    part: Sequence[PyTorchObs],
) -> bool:
    """Add the squares of a part of the batch; or return False, as a layer is run twice, or on more than vectors or images."""
    with _watched(layers) as signals:
        pairs = outputs(*part)
    # What is frozen, or runs without gradients, has none
    run = [layer for layer in layers if any(output.requires_grad for _, output in signals[layer])]
    if any(len(signals[layer]) > 1 or signals[layer][0][1].dim() != layer.weight.dim() for layer in run):
        return False
    inputs, before = ([signals[layer][0][i] for layer in run] for i in (0, 1))
    for y, weight in _columns(pairs):
        gradients = th.autograd.grad(y.sum(), before, retain_graph=True, allow_unused=True, materialize_grads=True)
        for layer, x, gradient in zip(run, inputs, gradients, strict=True):
            squares = _squares(layer, x, gradient, weight)
            for parameter, square in zip((layer.weight, layer.bias), squares, strict=True):
                if isinstance(parameter, nn.Parameter) and parameter in sums:
                    sums[parameter] += square
    return True


def _squares(
    layer: nn.Linear | nn.Conv2d, x: th.Tensor, gradient: th.Tensor, weight: th.Tensor
) -> tuple[th.Tensor, th.Tensor]:
    """Weighted sums over the states of the squared gradients of a layer's weight and bias."""
    if isinstance(layer, nn.Linear):
        square = weight[:, None] * gradient.square()
        return square.T @ x.square(), square.sum(0)
    assert not isinstance(layer.padding, str)
    columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # (states, inputs, positions)
    gradient = gradient.flatten(2)  # (states, channels, positions)
    of_weight = (gradient @ columns.transpose(1, 2)).square()
    of_weight = th.einsum("b,boi->oi", weight, of_weight).view_as(layer.weight)
    return of_weight, weight @ gradient.sum(2).square()


def _columns(pairs: Sequence[tuple[th.Tensor, th.Tensor]]) -> Iterator[tuple[th.Tensor, th.Tensor]]:
    """Each output with its weight, both of shape (states,)."""
    for y, weight in pairs:
        yield from zip(y.unbind(1), weight.unbind(1), strict=True)


def _add_squares_of_each(sums: dict[nn.Parameter, th.Tensor], outputs: Outputs, part: Sequence[PyTorchObs]) -> None:
    """Add the squares of a part of the batch, state by state."""
    parameters = list(sums)
    for state in zip(*(split(each, 1) for each in part), strict=True):
        for y, weight in _columns(outputs(*state)):
            gradients = th.autograd.grad(y[0], parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                sums[parameter] += weight[0] * gradient.square()
