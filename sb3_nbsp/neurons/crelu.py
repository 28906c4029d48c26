"""Concatenated ReLU."""

import torch as th
from torch import nn


class CReLU(nn.Module):
    r"""
    Concatenated ReLU (Shang et al., 2016; against loss of plasticity: Abbas et al., 2023).

    .. math:: CReLU(x) = [\max(x, 0), \max(-x, 0)]

    The next layer sees twice the features: neuron ``j`` of ``n`` owns the features ``j`` and ``n + j``.
    """

    features_per_neuron = 2

    def forward(self, x: th.Tensor) -> th.Tensor:
        """
        :param x: shape (batch, n, ...)
        :return: shape (batch, 2 n, ...)
        """
        return th.cat([th.relu(x), th.relu(-x)], dim=1)
