"""The methods that can be compared by name, and the paper's ablations as groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sb3_nbsp.messages import did_you_mean


@dataclass(frozen=True)
class Method:
    """
    One row of a table.

    :param name: what it is called on the command line and in tables
    :param algo: the zoo's name of the algorithm; its YAML file gives the hyper-parameters
    :param options: hyper-parameters that differ from the YAML file's
    :param description: what it is, in a few words
    """

    name: str
    algo: str
    options: dict[str, Any] = field(default_factory=dict)
    description: str = ""


def _nbsp(name: str, description: str, **options: Any) -> Method:
    return Method(name, "nbsp_sac", options, description)


PROPORTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)

_ALL = [
    Method("sac", "sac", description="SB3's SAC, whose replay buffer is never emptied"),
    Method("continual_sac", "continual_sac", description="plain (vanilla) SAC: D is emptied when a phase starts"),
    Method("nbsp_sac", "nbsp_sac", description="NBSP"),
    # Tables 2, 9, 10
    _nbsp("nbsp_replay_only", "only experience replay", masking=False),
    _nbsp("nbsp_masks_only", "only gradient masking", replay=False),
    _nbsp("nbsp_hard_masks", "NBSP with hard gradient masking", mask_type="hard"),
    # Table 3
    _nbsp("nbsp_activation", "skill neurons by activation magnitude", identification="activation"),
    _nbsp("nbsp_weight", "skill neurons by weight magnitude", identification="weight"),
    _nbsp("nbsp_random", "random skill neurons", identification="random"),
    _nbsp("nbsp_goal", "skill neurons by the printed score", identification="goal"),
    _nbsp("nbsp_balanced", "skill neurons by the score corrected for chance", identification="balanced"),
    # Table 4
    _nbsp("nbsp_actor", "masks on the actor only", mask_networks="actor"),
    _nbsp("nbsp_critic", "masks on the critics only", mask_networks="critic"),
    # Figure 4
    *(_nbsp(f"nbsp_proportion_{m}", f"a share of {m} skill neurons", skill_proportion=m) for m in PROPORTIONS),
    # Readings of what the paper leaves open
    _nbsp("nbsp_gradient_mask", "the mask scales the gradient instead of the step", mask_target="gradient"),
    _nbsp("nbsp_outgoing", "masks on the weights that read skill neurons", mask_side="outgoing"),
    _nbsp("nbsp_both_sides", "masks on incoming and outgoing weights", mask_side="both"),
    _nbsp("nbsp_current_ent_coef", "replayed batches have the current entropy coefficient", replay_ent_coef="current"),
    _nbsp("nbsp_own_ent_coef", "replayed batches have their task's entropy coefficient", replay_ent_coef="own"),
    *(
        _nbsp(
            f"nbsp_{metric}_{data}",
            f"goal metric of the {metric}, on {data} steps",
            goal_metric=f"{metric}_success",
            identification_data=data,
        )
        for metric in ("step", "episode")
        for data in ("training", "fresh")
    ),
    # What a phase starts with
    *(
        Method(f"{algo}_{name}", algo, {"known_task_threshold": threshold}, description)
        for algo in ("continual_sac", "nbsp_sac")
        for name, threshold, description in (
            ("look", 0.5, "every phase starts with a look at whether its task is known"),
            ("anew", None, "every phase starts with random actions, known task or not"),
        )
    ),
]
METHODS = {method.name: method for method in _ALL}

# The methods of each of the paper's tables, and of the questions that it leaves open
ABLATIONS: dict[str, list[str]] = {
    "table2": ["continual_sac", "nbsp_replay_only", "nbsp_masks_only", "nbsp_hard_masks", "nbsp_sac"],
    "table3": ["nbsp_activation", "nbsp_weight", "nbsp_random", "nbsp_goal", "nbsp_balanced"],
    "table4": ["nbsp_actor", "nbsp_critic", "nbsp_sac"],
    "figure4": [f"nbsp_proportion_{m}" for m in PROPORTIONS],
    "mask_target": ["nbsp_gradient_mask", "nbsp_sac"],
    "mask_side": ["nbsp_outgoing", "nbsp_both_sides", "nbsp_sac"],
    "replay_ent_coef": ["nbsp_current_ent_coef", "nbsp_own_ent_coef"],
    "goal_metric": ["nbsp_step_training", "nbsp_step_fresh", "nbsp_episode_training", "nbsp_episode_fresh"],
    "phase_start": ["continual_sac_look", "continual_sac_anew", "nbsp_sac_look", "nbsp_sac_anew"],
}


def find_methods(names: Sequence[str]) -> list[Method]:
    """
    :param names: names of methods and of ablations, which stand for all of their methods
    :return: the methods, each once, in the order in which they are named
    :raises ValueError: if a name is unknown
    """
    expanded = [method for name in names for method in ABLATIONS.get(name, [name])]
    for name in expanded:
        if name not in METHODS:
            hint = did_you_mean(name, [*METHODS, *ABLATIONS], n=3)
            raise ValueError(
                f"There is no method {name!r}{hint}\nMethods: {', '.join(METHODS)}\nGroups of methods: {', '.join(ABLATIONS)}"
            )
    return [METHODS[name] for name in dict.fromkeys(expanded)]
