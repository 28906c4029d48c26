"""
The one place that asks whether an environment is one of this package's.

Other environments use the same words (``info["phase"]``, ``get_progress()``, ``elapsed_steps``) for other things, and
vectorized simulators answer questions about attributes in ways of their own. So an environment is recognized by an attribute
that no other has, and every answer but True means no.
"""

from __future__ import annotations

from typing import Any

# Attributes that are True on an environment that announces phases, as a TaskSequence does, or changes with its steps, as
# CycleFriction does
PHASES = "sb3_nbsp_phases"
AGES = "sb3_nbsp_ages"


def has_phases(env: Any) -> bool:
    """
    :param env: a vectorized environment, or None
    :return: whether all of its environments are task sequences of this package that announce phases
    """
    return _all_say(env, PHASES)


def is_task_sequence(env: Any) -> bool:
    """
    :param env: a vectorized environment
    :return: whether its environments are task sequences of this package, with phases or playing their tasks in turn
    """
    try:
        return bool(env.has_attr(PHASES))
    except Exception:  # as in _all_say()
        return False


def ages(env: Any) -> bool:
    """
    :param env: a vectorized environment, or None
    :return: whether all of its environments change with their steps: they have ``elapsed_steps`` and ``set_elapsed_steps()``
    """
    return _all_say(env, AGES)


def _all_say(env: Any, attribute: str) -> bool:
    if env is None:
        return False
    try:
        # Environments in other processes must not be asked for what they lack
        answers = list(env.get_attr(attribute)) if env.has_attr(attribute) else []
    except Exception:  # simulators raise whatever they like when they do not know a word
        answers = []
    return bool(answers) and all(answer is True for answer in answers)
