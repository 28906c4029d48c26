"""
What a module does to the neurons of a network. Modules are known by name, never guessed: a norm or a pooling layer that is
taken for an activation function would make other neurons of a network than it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeGuard, get_args

import torch as th
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import is_parametrized

from sb3_nbsp.neurons.crelu import CReLU

# Row j of the weight computes neuron j
Weighted = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
# These act on each element alone. A PReLU's slopes are its neurons' own, or one for all
_ACTIVATIONS: list[type[nn.Module]] = [
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, CReLU),
    *(nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish),
    *(nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold),
]
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LocalResponseNorm),
)
# These leave each neuron where it is
_PASSIVE = (
    *(nn.Identity, nn.Flatten, nn.Sequential, nn.ModuleList),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
# These leave each channel of a convolution where it is; they would mix the outputs of a linear layer
_POSITIONAL = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d),
    *(nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.Upsample, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
    *(nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
    *(nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
)


# These call what they hold in the order of its definition, one after another, or leave that to others (nn.ModuleList)
_CHAINS: list[type[nn.Module]] = [nn.Sequential, nn.Module]
# Where a class says what it computes
_COMPUTES = ("forward", "_conv_forward", "__call__")


def register_activation(cls: type[nn.Module]) -> type[nn.Module]:
    """
    Register a custom activation function for this process. Can be used as a class decorator.

    :param cls: an elementwise module without parameters
    :return: the same class
    :raises ValueError: if it is not a class of modules
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"register_activation needs a class of modules, not {cls!r}")
    if cls not in _ACTIVATIONS:
        _ACTIVATIONS.append(cls)
    return cls


def register_chain(cls: type[nn.Module]) -> None:
    """
    Make a class of modules known that calls what it holds in the order of its definition, one on the output of the other.

    :param cls: the class
    """
    if cls not in _CHAINS:
        _CHAINS.append(cls)


def is_chain(module: nn.Module) -> bool:
    """
    :param module: a container
    :return: whether it is known that it calls what it holds in the order of its definition
    """
    return any(type(module).forward is kind.forward for kind in _CHAINS) and "forward" not in vars(module)


def _is(module: nn.Module, kinds: Iterable[type[nn.Module]]) -> bool:
    """Whether it is one of these, or a subclass that computes the same."""
    return any(isinstance(module, kind) and _computes_like(module, kind) for kind in kinds)


def _computes_like(module: nn.Module, kind: type[nn.Module]) -> bool:
    return all(
        getattr(type(module), each, None) is getattr(kind, each, None) and each not in vars(module) for each in _COMPUTES
    )


def is_weighted(module: nn.Module) -> TypeGuard[Weighted]:
    """
    :param module: any
    :return: whether it is a linear layer or a convolution
    """
    return _is(module, get_args(Weighted))


def mixes_rows(module: Weighted) -> bool:
    """
    :param module: a linear layer or a convolution
    :return: whether a row of its weight depends on the parameters of other rows, as with ``parametrizations.spectral_norm``
    """
    if not is_parametrized(module, "weight"):
        return False
    return not all(isinstance(each, _WeightNorm) and each.dim == 0 for each in module.parametrizations["weight"])  # type: ignore[index]


def is_activation(module: nn.Module) -> bool:
    """
    :param module: any
    :return: whether it is an activation function
    """
    return _is(module, _ACTIVATIONS)


def is_norm(module: nn.Module) -> bool:
    """
    :param module: any
    :return: whether it normalizes, with a gain and a bias of each neuron or without
    """
    return _is(module, _NORMS)


def tracks_statistics(module: nn.Module) -> bool:
    """
    :param module: any
    :return: whether it normalizes by running statistics of its inputs, in evaluation mode
    """
    return isinstance(module, _NormBase) and module.running_mean is not None


def state_beside_parameters(network: nn.Module) -> list[th.Tensor]:
    """
    :param network: any
    :return: what its layers keep beside their parameters, such as the statistics of a batch norm and the directions by which
        ``spectral_norm`` estimates a norm: a copy of the network needs them as well
    """
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


def check_known(name: str, module: nn.Module, layer: Weighted | None = None) -> None:
    """
    :param name: name of the module
    :param module: any; a container, too
    :param layer: the layer whose neurons pass through it; None if there is none yet
    :raises ValueError: if it is not known what becomes of these neurons, or whose its parameters are
    """
    kind = f"{name!r} ({type(module).__name__})"
    if is_weighted(module):
        weight = module._parameters.get("weight")
        if weight is None and not is_parametrized(module, "weight"):
            raise ValueError(
                f"{kind} computes its weight with a hook (nn.utils.spectral_norm or weight_norm, pruning): what belongs to "
                "which neuron is not known. Use torch.nn.utils.parametrizations, or the plain layer"
            )
        if isinstance(weight, nn.UninitializedParameter):
            raise ValueError(f"{kind} has no weight yet: run a forward pass first, or give it its number of inputs")
        return
    if is_norm(module) or _is(module, (nn.PReLU, *_PASSIVE)):
        return
    if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
        raise ValueError(
            f"{kind} has parameters of its own, and it is not known which neurons they belong to. Neurons are found in "
            "PyTorch's linear layers, convolutions, norms and activation functions: build it from these, or freeze it"
        )
    if is_activation(module) or module._modules or layer is None:  # what comes ahead of all layers moves no neuron
        return
    if _is(module, _POSITIONAL) and not isinstance(layer, nn.Linear):
        return
    raise ValueError(
        f"{kind} is not known: what it makes of the neurons ahead of it cannot be told. If it acts on each element alone and "
        f"has no parameters, register it: sb3_nbsp.neurons.register_activation({type(module).__name__})"
    )
