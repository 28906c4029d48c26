"""The methods that can be compared by name, and the paper's ablations as groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sb3_nbsp.messages import did_you_mean
from sb3_nbsp.zoo.algos import TABLE


@dataclass(frozen=True)
class Method:
    """
    One row of a comparison.

    :param name: its name on the command line and in the names of folders
    :param algo: the zoo's name of the algorithm, whose YAML file gives the hyper-parameters
    :param title: its name in tables and figures
    :param description: what it is, in a few words
    :param options: hyper-parameters that differ from those of the YAML file
    """

    name: str
    algo: str
    title: str
    description: str
    options: dict[str, Any] = field(default_factory=dict)


PROPORTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def _nbsp(name: str, title: str, description: str, **options: Any) -> Method:
    return Method(f"nbsp_{name}", "nbsp_sac", title, description, options)


_ALL = [
    *(Method(algo, algo, entry.title, entry.description) for algo, entry in TABLE.items()),
    # Tables 2, 9, 10
    _nbsp("replay_only", "replay only", "only experience replay", masking=False),
    _nbsp("masks_only", "masks only", "only gradient masking", replay=False),
    _nbsp("hard_masks", "NBSP, hard masks", "NBSP with hard gradient masking", mask_type="hard"),
    # Table 3
    _nbsp("activation", "by activation", "skill neurons by activation magnitude", identification="activation"),
    _nbsp("weight", "by weight", "skill neurons by weight magnitude", identification="weight"),
    _nbsp("random", "random neurons", "random skill neurons", identification="random"),
    _nbsp("goal", "by printed score", "skill neurons by the printed score", identification="goal"),
    _nbsp("balanced", "by balanced score", "skill neurons by the score corrected for chance", identification="balanced"),
    # Table 4
    _nbsp("actor", "actor only", "masks on the actor only", mask_networks="actor"),
    _nbsp("critic", "critics only", "masks on the critics only", mask_networks="critic"),
    # Figure 4
    *(_nbsp(f"proportion_{m}", f"NBSP, m = {m}", f"a share of {m} skill neurons", skill_proportion=m) for m in PROPORTIONS),
    # Readings of what the paper leaves open
    _nbsp("gradient_mask", "NBSP, gradient masks", "the mask scales the gradient, not the step", mask_target="gradient"),
    _nbsp("outgoing", "NBSP, outgoing masks", "masks on the weights that read skill neurons", mask_side="outgoing"),
    _nbsp("both_sides", "NBSP, both sides", "masks on incoming and outgoing weights", mask_side="both"),
    _nbsp("current_ent_coef", "NBSP, current α", "replay with the current entropy coefficient", replay_ent_coef="current"),
    _nbsp("own_ent_coef", "NBSP, own α", "replay with the entropy coefficient of the task", replay_ent_coef="own"),
    *(
        _nbsp(
            f"{metric}_{data}",
            f"NBSP, {metric}, {data}",
            f"goal metric of the {metric}, on {data} steps",
            goal_metric=f"{metric}_success",
            identification_data=data,
        )
        for metric in ("step", "episode")
        for data in ("training", "fresh")
    ),
    # What a phase starts with
    *(
        Method(f"{algo}_{name}", algo, f"{TABLE[algo].title}, {title}", description, {"known_task_threshold": threshold})
        for algo in ("continual_sac", "nbsp_sac")
        for name, title, threshold, description in (
            ("probe", "probe", 0.5, "every phase starts with a probe of whether its task is known"),
            ("from_scratch", "from scratch", None, "every phase starts with random actions, known task or not"),
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
    "phase_start": ["continual_sac_probe", "continual_sac_from_scratch", "nbsp_sac_probe", "nbsp_sac_from_scratch"],
}


def find_methods(names: Sequence[str]) -> list[Method]:
    """
    :param names: names of methods and of groups, each of which stands for all of its methods
    :return: the methods, each once, in the order of the names
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
