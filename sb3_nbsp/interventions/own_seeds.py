"""Seeds for randomness of an intervention's own, so that switching it on leaves the agent's random streams alone."""

from __future__ import annotations

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_nbsp.interventions.base import Phase


def own_seed(agent: BaseAlgorithm, phase: Phase | int, purpose: int) -> int:
    """
    Seed for randomness of an intervention's own, so that switching it on leaves the agent's random streams alone.

    :param agent: its seed is used; an agent without one draws a seed of its own, once in its life
    :param phase: the phase that the randomness is for, or another number that tells occasions apart
    :param purpose: a number of the caller's own
    :return: a seed
    """
    occasion = phase.index if isinstance(phase, Phase) else phase
    return int(np.random.SeedSequence([agent_seed(agent), occasion, purpose]).generate_state(1)[0])


def agent_seed(agent: BaseAlgorithm) -> int:
    """
    :param agent: any agent
    :return: its seed; one without a seed draws one, once in its life
    """
    if agent.seed is not None:
        return agent.seed
    # From the operating system, as the global random streams are not ours. It travels with the saved agent
    drawn: int = vars(agent).setdefault("_drawn_seed", int(np.random.SeedSequence().generate_state(1)[0]))
    return drawn
