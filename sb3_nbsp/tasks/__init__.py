"""Sequences of tasks, evaluation on all of them, and the metrics of continual learning."""

from sb3_nbsp.tasks.checkpoint import SequenceCheckpoint, latest_checkpoint, load_checkpoint
from sb3_nbsp.tasks.cycle_friction import CycleFriction
from sb3_nbsp.tasks.evaluation import SequenceEvaluation
from sb3_nbsp.tasks.metrics import SuccessMatrix, average_success_rate, forgetting_measure, forward_transfer
from sb3_nbsp.tasks.sequence import TaskSequence, gymnasium_cycle

__all__ = [
    "CycleFriction",
    "SequenceCheckpoint",
    "SequenceEvaluation",
    "SuccessMatrix",
    "TaskSequence",
    "average_success_rate",
    "forgetting_measure",
    "forward_transfer",
    "gymnasium_cycle",
    "latest_checkpoint",
    "load_checkpoint",
]
