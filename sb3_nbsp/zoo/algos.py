"""The names under which the zoo knows this package's algorithms, and their tuned hyperparameters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_nbsp.algorithms import ContinualDiscreteSAC, ContinualPPO, ContinualSAC, methods
from sb3_nbsp.extras import needs
from sb3_nbsp.messages import did_you_mean, warn
from sb3_nbsp.zoo.samplers import (
    log_uniform,
    sample_cbp,
    sample_cotasp,
    sample_nbsp,
    sample_packnet,
    sample_pi,
    sample_reset,
    sample_sbp,
)

with needs("zoo", "sb3_nbsp.zoo"):
    import yaml


@dataclass(frozen=True)
class Entry:
    """
    What is known about an algorithm.

    :param cls: its class
    :param title: its name in tables and figures
    :param description: what it is, in a few words
    :param sample: suggests values of the method's own options to ``-optimize``, which samples those of PPO or SAC itself
    """

    cls: type[BaseAlgorithm]
    title: str
    description: str
    sample: Callable[[Any], dict[str, Any]] | None = None


def _on_each_base(name: str, cls: str, title: str, description: str, sample: Any = None) -> dict[str, Entry]:
    """Entries for the classes of a method: on SAC, on discrete SAC, on PPO, as far as there are such."""
    suffixes = {"sac": "SAC", "discrete_sac": "DiscreteSAC", "ppo": "PPO"}
    titles = {"sac": "SAC", "discrete_sac": "discrete SAC", "ppo": "PPO"}
    return {
        f"{name}_{base}": Entry(getattr(methods, cls + suffix), f"{title} on {titles[base]}", description, sample)
        for base, suffix in suffixes.items()
        if hasattr(methods, cls + suffix)
    }


# A new method is one line here, with a name that ends with its base. Where its settings are not those of its base, it has a
# file of that name in hyperparams/
TABLE = {
    "nbsp_sac": Entry(methods.NBSPSAC, "NBSP", "masks and replay on SAC", sample_nbsp),
    "continual_sac": Entry(ContinualSAC, "vanilla SAC", "plain SAC, whose replay buffer is emptied when a phase starts"),
    "nbsp_discrete_sac": Entry(methods.NBSPDiscreteSAC, "NBSP, discrete", "masks and replay on discrete SAC", sample_nbsp),
    "continual_discrete_sac": Entry(ContinualDiscreteSAC, "discrete SAC", "vanilla SAC for discrete actions"),
    "sbp_discrete_sac": Entry(methods.SBPDiscreteSAC, "SBP on discrete SAC", "sbp_sac for discrete actions", sample_sbp),
    "cycle_discrete_sac": Entry(
        methods.CycleDiscreteSAC, "cycle reset on discrete SAC", "cycle_sac for discrete actions", sample_reset
    ),
    "redo_discrete_sac": Entry(methods.ReDoDiscreteSAC, "ReDo on discrete SAC", "redo_sac for discrete actions", sample_reset),
    "cbp_discrete_sac": Entry(methods.CBPDiscreteSAC, "CBP on discrete SAC", "cbp_sac for discrete actions", sample_cbp),
    "sbp_sac": Entry(methods.SBPSAC, "SBP on SAC", "cycle reset and inner distillation on SAC", sample_sbp),
    "cycle_sac": Entry(methods.CycleSAC, "cycle reset on SAC", "renews neurons in turn, without distillation", sample_reset),
    "redo_sac": Entry(methods.ReDoSAC, "ReDo on SAC", "renews dormant neurons", sample_reset),
    "cbp_sac": Entry(methods.CBPSAC, "CBP on SAC", "continual backpropagation", sample_cbp),
    "cotasp_sac": Entry(
        methods.CoTASPSAC, "CoTASP (told the task)", "the task's name selects units of the actor", sample_cotasp
    ),
    "cotasp_discrete_sac": Entry(
        methods.CoTASPDiscreteSAC, "CoTASP, discrete (told the task)", "cotasp_sac for discrete actions", sample_cotasp
    ),
    "packnet_sac": Entry(
        methods.PackNetSAC, "PackNet (told the task)", "each weight of the actor belongs to one task", sample_packnet
    ),
    "packnet_discrete_sac": Entry(
        methods.PackNetDiscreteSAC,
        "PackNet on discrete SAC (told the task)",
        "packnet_sac for discrete actions",
        sample_packnet,
    ),
    **_on_each_base(
        "ewc", "EWC", "EWC", "pulls parameters back to their values after earlier tasks", log_uniform(ewc_coef=(1e-2, 1e4))
    ),
    **_on_each_base(
        "ancl",
        "ANCL",
        "ANCL",
        "EWC plus a pull towards copies that learn freely",
        log_uniform(ewc_coef=(1e-2, 1e4), ancl_coef=(1e-3, 1e3)),
    ),
    **_on_each_base("clonex", "ClonEx", "ClonEx", "clones the policy of earlier tasks", log_uniform(clone_coef=(1e-1, 1e4))),
    **_on_each_base("npc", "NPC", "NPC", "important neurons learn more slowly", log_uniform(npc_beta=(1e4, 1e8))),
    **_on_each_base(
        "l2_init",
        "L2Init",
        "L2 Init",
        "pulls parameters towards their initial values",
        log_uniform(l2_init_weight=(1e-6, 1e-2)),
    ),
    **_on_each_base("pi", "PI", "plasticity injection", "a new head learns beside the frozen one", sample_pi),
    **_on_each_base(
        "shrink_perturb",
        "ShrinkPerturb",
        "shrink and perturb",
        "shrinks the networks and adds noise",
        log_uniform(shrink_factor=(0.2, 1.0), perturb_scale=(1e-3, 0.3)),
    ),
    **_on_each_base(
        "weight_clipping", "WeightClipping", "weight clipping", "clamps weights", log_uniform(clip_factor=(1.0, 10.0))
    ),
    **_on_each_base("layer_norm", "LayerNorm", "layer norm", "pre-activations are normalized"),
    **_on_each_base("crelu", "CReLU", "CReLU", "concatenated ReLUs"),
    **_on_each_base("full_reset", "FullReset", "full reset", "every phase begins with new networks"),
    **_on_each_base("perfect_memory", "PerfectMemory", "perfect memory", "keeps all transitions"),
    "p3o": Entry(methods.P3O, "P3O", "cycle reset and inner distillation on PPO", sample_sbp),
    "cycle_ppo": Entry(methods.CyclePPO, "cycle reset", "renews neurons in turn on PPO, without distillation", sample_reset),
    "redo_ppo": Entry(methods.ReDoPPO, "ReDo", "renews dormant neurons on PPO", sample_reset),
    "cbp_ppo": Entry(methods.CBPPPO, "CBP", "continual backpropagation on PPO", sample_cbp),
    "continual_ppo": Entry(ContinualPPO, "ContinualPPO", "PPO that follows the phases of a task sequence"),
    # SB3's own, for which this package has hyperparameters on its environments
    "sac": Entry(SAC, "SB3's SAC", "SAC whose replay buffer is never emptied"),
    "ppo": Entry(PPO, "PPO", "SB3's PPO"),
}
PLAIN = {name: entry.cls for name, entry in TABLE.items() if entry.cls in (SAC, PPO)}
ALGOS = {name: entry.cls for name, entry in TABLE.items() if name not in PLAIN}
# Options that can fall to 0 during training: "lin_3e-4"
SCHEDULED = {"learning_rate", "qf_learning_rate", "clip_range", "clip_range_vf"}


def hyperparams_file(algo: str, env_id: str = "default") -> Path | None:
    """
    The YAML with an algorithm's hyperparameters on an environment: the first that has a section for it among the algorithm's
    own and those of the classes it derives from, so that methods on one task sequence differ by nothing but the method. If
    none has one, the first that there is.

    :param algo: name of the algorithm
    :param env_id: id of the environment
    :return: the file, in the checkout or in the installed package; None if this package has none for it
    """
    package = Path(__file__).parent.parent
    bases = algorithm(algo).__mro__ if algo in TABLE else ()
    names = [algo, *(name for base in bases for name, entry in TABLE.items() if entry.cls is base)]
    candidates = [folder / "hyperparams" / f"{name}.yml" for name in names for folder in (package, package.parent)]
    files = [path for path in candidates if path.is_file()]
    return next((path for path in files if env_id in _sections(path)), files[0] if files else None)


@cache
def _sections(file: Path) -> frozenset[str]:
    return frozenset(yaml.safe_load(file.read_text(encoding="utf-8")))


def read_hyperparams(algo: str, env_id: str) -> dict[str, Any]:
    """
    Hyperparameters of an algorithm on an environment.

    :param algo: a name in ``TABLE``
    :param env_id: id of the environment; one without an entry gets the "default"
    :return: keyword arguments of the algorithm, with ``n_timesteps``
    :raises ValueError: if there is no such algorithm
    """
    file = hyperparams_file(algo, env_id)
    if file is None:
        raise ValueError(f"algo must be one of {', '.join(map(repr, TABLE))}, not {algo!r}")
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    warn_of_missing_entry(entries, env_id, str(file))
    hyperparams = dict(entries.get(env_id, entries["default"]))
    # As the zoo does; the file is this package's own
    hyperparams["policy_kwargs"] = eval(hyperparams.get("policy_kwargs", "dict()"), {"nn": nn})
    return hyperparams


def warn_of_missing_entry(entries: Iterable[str], env_id: str, file: str) -> None:
    """
    Warn where an environment gets the section "default" although there is an entry of nearly the same name.

    :param entries: names of the sections of a YAML file
    :param env_id: id of the environment
    :param file: the file's name, for the message
    """
    names = [name for name in entries if name != "default"]
    if env_id not in names and (hint := did_you_mean(env_id, names, similarity=0.85)):
        warn(f"{file} has no entry {env_id!r}: the section 'default' is taken{hint}")


def with_schedules(hyperparams: dict[str, Any]) -> dict[str, Any]:
    """
    Replace the zoo's words for schedules, such as "lin_3e-4", which falls to 0 during training.

    :param hyperparams: keyword arguments of an algorithm
    :return: the same, with schedules in the place of such words
    :raises ValueError: if there is no number after the word
    """
    found = dict(hyperparams)
    for name in SCHEDULED.intersection(found):
        if isinstance(found[name], str):
            word, _, initial_value = found[name].partition("_")
            try:
                found[name] = LinearSchedule(float(initial_value), 0.0, 1.0)
            except ValueError:
                word = ""
            if word != "lin":
                raise ValueError(f"{name} must be a number or a schedule such as 'lin_3e-4', not {hyperparams[name]!r}")
    return found


def algorithm(algo: str) -> type[BaseAlgorithm]:
    """
    :param algo: a name in ``TABLE``
    :return: the class
    """
    return TABLE[algo].cls
