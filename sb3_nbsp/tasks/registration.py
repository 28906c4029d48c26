"""Environment ids of the task sequences."""

from typing import Any

from gymnasium.envs.registration import register

# NBSP, table 1: two cycles each
PAPER_CYCLES = {
    "WindowOpen-WindowClose": ["window-open", "window-close"],
    "DrawerOpen-DrawerClose": ["drawer-open", "drawer-close"],
    "ButtonPressTopdown-WindowOpen": ["button-press-topdown", "window-open"],
    "WindowOpen-WindowClose-DrawerOpen-DrawerClose": ["window-open", "window-close", "drawer-open", "drawer-close"],
    "ButtonPressTopdown-WindowClose-DoorOpen-DrawerClose": [
        "button-press-topdown",
        "window-close",
        "door-open",
        "drawer-close",
    ],
}
# Continual World
CW10 = [
    "hammer",
    "push-wall",
    "faucet-close",
    "push-back",
    "stick-pull",
    "handle-press-side",
    "push",
    "shelf-place",
    "window-close",
    "peg-unplug-side",
]
# Pairs that SAC masters alone at the laptop's size (see docs/results.md)
LAPTOP_CYCLES = {
    "CoffeeButton-DrawerClose": ["coffee-button", "drawer-close"],
    "CoffeeButton-HandlePress": ["coffee-button", "handle-press"],
}

_METAWORLD = "sb3_nbsp.tasks.metaworld:metaworld_cycle"
# A size that one core of a laptop gets through: short episodes, and a tenth of the steps
LAPTOP: dict[str, Any] = {"horizon": 200, "steps_per_task": 100_000}


def sequences() -> dict[str, dict[str, Any]]:
    """
    Named Meta-World sequences.

    :return: environment id to the arguments of :func:`~sb3_nbsp.tasks.metaworld.metaworld_cycle`
    """
    named: dict[str, dict[str, Any]] = {f"MW-{name}": {"tasks": tasks} for name, tasks in PAPER_CYCLES.items()}
    # Continual World trains every task for all of its steps
    for name, cycles in (("MW-CW10", 1), ("MW-CW20", 2)):
        named[name] = {"tasks": CW10, "cycles": cycles, "horizon": 200, "mastery_threshold": None}
    laptop = {f"{name}-laptop": {**kwargs, **LAPTOP} for name, kwargs in named.items()}
    laptop |= {f"MW-{name}-laptop": {"tasks": tasks, **LAPTOP} for name, tasks in LAPTOP_CYCLES.items()}
    return {f"{name}-v0": kwargs for name, kwargs in {**named, **laptop}.items()}


def register_sequences() -> None:
    """Register all sequences with Gymnasium."""
    # Any list of tasks: gym.make("MW-Cycle-v0", tasks=[...], cycles=2, ...)
    register("MW-Cycle-v0", entry_point=_METAWORLD)
    register("GymCycle-v0", entry_point="sb3_nbsp.tasks.sequence:gymnasium_cycle")
    for env_id, kwargs in sequences().items():
        register(env_id, entry_point=_METAWORLD, kwargs=kwargs)
