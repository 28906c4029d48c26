"""What a neuron is, what it does and how its learning is held back. PyTorch only: no reinforcement learning in here."""

from sb3_nbsp.neurons.activations import record_activations
from sb3_nbsp.neurons.crelu import CReLU
from sb3_nbsp.neurons.layers import NeuronLayer, find_neuron_layers
from sb3_nbsp.neurons.masks import MaskedStep, skill_mask
from sb3_nbsp.neurons.module_kinds import register_activation
from sb3_nbsp.neurons.scores import (
    activation_score,
    active_share,
    balanced_score,
    goal_oriented_score,
    random_score,
    select_top,
    weight_score,
)
from sb3_nbsp.neurons.utility import contribution_utility, redo_score
from sb3_nbsp.neurons.zeroing import zeroed

__all__ = [
    "CReLU",
    "MaskedStep",
    "NeuronLayer",
    "activation_score",
    "active_share",
    "balanced_score",
    "contribution_utility",
    "find_neuron_layers",
    "goal_oriented_score",
    "random_score",
    "record_activations",
    "redo_score",
    "register_activation",
    "select_top",
    "skill_mask",
    "weight_score",
    "zeroed",
]
