"""The zoo's commands with this package's algorithms and environments: ``sb3-nbsp train``, ``sb3-nbsp enjoy``, ..."""

from __future__ import annotations

import argparse
import builtins
import importlib
import os
import re
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from traceback import walk_tb
from types import ModuleType, SimpleNamespace, TracebackType
from typing import Any

from sb3_nbsp.messages import ArgumentParser, did_you_mean, folders, warn, warn_without_place

USAGE = """usage: sb3-nbsp COMMAND [options]

RL Zoo's commands, with the algorithms (nbsp_sac, p3o, ...: see train --help) and environments of this package,
and benchmark, which compares methods:

  train         train an agent, or search hyperparameters with -optimize
  enjoy         watch a trained agent; on a task sequence, it plays the tasks in turn
  record_video  record a video of a trained agent
  push_to_hub   upload a trained agent to the Hugging Face Hub
  load_from_hub download a trained agent
  benchmark     compare methods on environments and seeds; tables, figures, a report

sb3-nbsp COMMAND --help lists the options of a command, sb3-nbsp --version prints the version."""


def train() -> None:
    """Run rl-zoo3's train with this package registered."""
    _prepare()
    import rl_zoo3.train

    from sb3_nbsp.zoo.arguments import truth
    from sb3_nbsp.zoo.manager import SequenceExperimentManager

    # As the type of an argument, the built-in bool takes every word for True
    vars(rl_zoo3.train).update(ExperimentManager=SequenceExperimentManager, bool=truth)
    _improve_parser(rl_zoo3.train)
    rl_zoo3.train.train()


def enjoy() -> None:
    """Run rl-zoo3's enjoy with this package registered."""
    _prepare_to_play()
    _warn_without_display()
    _load_without_replay_buffer()
    _tell_tasks(says=True)
    _mend_load_from_hub()
    import rl_zoo3.enjoy

    _improve_parser(rl_zoo3.enjoy)
    rl_zoo3.enjoy.enjoy()


def record_video() -> None:
    """Run rl-zoo3's record_video with this package registered."""
    _film_without_display()
    _prepare_to_play()
    _load_without_replay_buffer()
    _tell_tasks()
    runpy.run_module("rl_zoo3.record_video", run_name="__main__")


def push_to_hub() -> None:
    """Run rl-zoo3's push_to_hub with this package registered."""
    _film_without_display()
    _prepare_to_play()
    _tell_tasks()
    _mend_push_to_hub()
    runpy.run_module("rl_zoo3.push_to_hub", run_name="__main__")


def load_from_hub() -> None:
    """Run rl-zoo3's load_from_hub with this package registered."""
    _prepare()
    _mend_load_from_hub()
    runpy.run_module("rl_zoo3.load_from_hub", run_name="__main__")


def benchmark() -> None:
    """Run ``python -m sb3_nbsp.benchmark``."""
    try:
        runpy.run_module("sb3_nbsp.benchmark", run_name="__main__")
    except ImportError as error:
        raise SystemExit(str(error)) from error


def _prepare() -> None:
    sys.excepthook = _say_what_is_wrong
    warn_without_place()
    try:
        from sb3_nbsp.zoo.registration import register
    except ImportError as error:
        raise SystemExit(f"The zoo's commands need the extra zoo: pip install 'sb3_nbsp[zoo]' ({error})") from error
    register()
    _accept_words()
    if _given_env()[0].startswith("dm_control/"):
        from sb3_nbsp.tasks.dm_control import import_dm_control

        try:
            import_dm_control()
        except ImportError as error:
            raise SystemExit(str(error)) from error


def _say_what_is_wrong(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """
    In place of the traceback: the message alone of an error that a check of what was given has raised, ahead of training. What
    user code, PyTorch and others raise keeps its traceback.
    """
    import gymnasium as gym

    of_checks = (ValueError, TypeError, AssertionError, ImportError, FileNotFoundError, gym.error.Error)
    codes = [frame.f_code for frame, _ in walk_tb(trace)]
    is_ahead = all(code.co_name != "learn" for code in codes) and codes[-1].co_filename.startswith(folders("gymnasium"))
    if is_ahead and issubclass(kind, of_checks) and str(error):
        print(f"{sys.argv[0]}: error: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _accept_words() -> None:
    """``mask_type:hard`` is the word "hard", as in ``benchmark``; rl-zoo3 alone evaluates every value as Python code."""
    from rl_zoo3.utils import StoreDict

    store = StoreDict.__call__

    def store_words(self: Any, parser: Any, namespace: Any, values: list[str], option_string: str | None = None) -> None:
        found: dict[str, Any] = {}
        for text in values:
            key, _, value = text.partition(":")
            # A dot ahead of a digit, as in auto_0.1, is of a number, not of Python's attributes
            is_word = re.fullmatch(r"[A-Za-z_][\w-]*(\.\d[\w-]*)?", value) and not hasattr(builtins, value)
            try:
                store(self, parser, namespace, [f"{key}:{value!r}" if is_word else text], option_string)
            except Exception as error:  # whatever the code raises
                why = f" ({error})" if value else ""
                parser.error(f"{option_string} {text}: give name:value, where value is a word or Python code{why}")
            found |= getattr(namespace, self.dest)
        setattr(namespace, self.dest, found)

    StoreDict.__call__ = store_words  # type: ignore[method-assign]


def _improve_parser(command: ModuleType) -> None:
    """
    ``--help`` of a command of rl-zoo3 names the defaults of all options, where the text alone does not, and the message about
    a misspelt choice the one that was probably meant.
    """
    parser = partial(ArgumentParser, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    vars(command)["argparse"] = SimpleNamespace(**{**vars(argparse), "ArgumentParser": parser})


def _prepare_to_play() -> None:
    _prepare()
    _check_steps()
    _play_tasks_in_turn()
    _normalize_as_the_model_did()


def _given_env() -> tuple[str, list[str]]:
    """Environment and its arguments, as given on the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", default="")
    parser.add_argument("--env-kwargs", nargs="+", default=[])
    given, _ = parser.parse_known_args()
    return given.env, given.env_kwargs


def _check_steps() -> None:
    """rl-zoo3 plays nothing with none, and says nothing."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-n", "--n-timesteps", default="1")
    given, _ = parser.parse_known_args()
    if re.fullmatch(r"-\d+|0+", given.n_timesteps):
        raise ValueError(f"--n-timesteps must be 1 or more, not {given.n_timesteps}")


def _is_headless() -> bool:
    return sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()


def _film_without_display() -> None:
    """Ahead of the import of MuJoCo, which would look for a display even to make pictures."""
    if _is_headless():
        os.environ.setdefault("MUJOCO_GL", "egl")


def _warn_without_display() -> None:
    """MuJoCo's window aborts the process there, without a word about what to do."""
    if _is_headless() and not {"--no-render", "--help", "-h"} & set(sys.argv):
        warn("There is no display to watch the agent on: give --no-render, or record it with sb3-nbsp record_video")


def _play_tasks_in_turn() -> None:
    """Rotate, unless told otherwise: to watch an agent is to watch it on all tasks of a sequence."""
    import gymnasium as gym

    from sb3_nbsp.tasks.registration import is_sequence

    env, env_kwargs = _given_env()
    is_known = env in gym.registry and is_sequence(env)
    if is_known and not any(argument.startswith("rotate:") for argument in env_kwargs):
        sys.argv += ["--env-kwargs", *env_kwargs, "rotate:True"]


def _load_without_replay_buffer() -> None:
    """rl-zoo3 does so for the names that it knows; for others it would allocate the full size, gigabytes on Humanoid."""
    import rl_zoo3
    from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

    from sb3_nbsp.zoo.algos import ALGOS

    for name, cls in ALGOS.items():
        if issubclass(cls, OffPolicyAlgorithm):
            small = {"load": staticmethod(partial(cls.load, buffer_size=1))}
            rl_zoo3.ALGOS[name] = type(cls.__name__, (cls,), small)


def _normalize_as_the_model_did() -> None:
    """Checkpoints and the best model have statistics of their own; rl-zoo3 takes those of the end of the run for all."""
    import rl_zoo3
    from rl_zoo3 import utils

    from sb3_nbsp.zoo.checkpoints import STATISTICS, beside

    get_model_path, create_test_env = utils.get_model_path, utils.create_test_env
    model: list[Path] = []

    def get_and_remember(exp_id: int, folder: str, *args: Any, **kwargs: Any) -> tuple[str, str, str]:
        try:
            found = get_model_path(exp_id, folder, *args, **kwargs)
        except (AssertionError, ValueError) as error:
            raise ValueError(f"{error}{_folder_hint(folder)}") from error
        model[:] = [Path(found[1])]
        return found

    def create(env_id: str, **kwargs: Any) -> Any:
        own = beside(model[0], STATISTICS) if model else None
        if own is None or not own.exists():
            return create_test_env(env_id, **kwargs)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(own, Path(folder) / "vecnormalize.pkl")
            return create_test_env(env_id, **{**kwargs, "stats_path": folder})

    vars(utils).update(get_model_path=get_and_remember, create_test_env=create)
    vars(rl_zoo3).update(create_test_env=create)


def _folder_hint(folder: str) -> str:
    """What to say if a run's folder was given, or that of an algorithm, in the place of the one above them."""
    given = Path(folder).resolve()
    for pattern, above in (("*/args.yml", given.parent.parent), ("*/*/args.yml", given.parent)):
        if any(given.glob(pattern)):
            return f"; did you mean -f {above}, which holds the folders of all algorithms?"
    return ""


def _tell_tasks(says: bool = False) -> None:
    """The agent that is loaded is told which task of a sequence is played, as in training; with ``says`` the user is, too."""
    import rl_zoo3
    from rl_zoo3 import utils

    from sb3_nbsp.tasks.recognize import is_task_sequence
    from sb3_nbsp.tasks.told_evaluation import ToldTasks
    from sb3_nbsp.zoo.algos import ALGOS

    create_test_env = utils.create_test_env

    def tell(task: str) -> None:
        if says:
            print(f"Task: {task}")
        for agent in _LOADED:
            agent.set_task(task)

    def create(env_id: str, **kwargs: Any) -> Any:
        env = create_test_env(env_id, **kwargs)
        return ToldTasks(env, tell) if is_task_sequence(env) and env.num_envs == 1 else env

    def remembering(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_and_remember(*args: Any, **kwargs: Any) -> Any:
            _LOADED[:] = [load(*args, **kwargs)]
            return _LOADED[0]

        return load_and_remember

    for name in ALGOS:
        cls = rl_zoo3.ALGOS[name]
        rl_zoo3.ALGOS[name] = type(cls.__name__, (cls,), {"load": staticmethod(remembering(cls.load))})
    vars(utils).update(create_test_env=create)
    vars(rl_zoo3).update(create_test_env=create)


def _mend_push_to_hub() -> None:
    """What rl-zoo3 2.9.2 expects of sb3-team-hf-integration 3.2 and huggingface_hub 2, and its commands in the card."""
    from huggingface_hub import repocard

    # Not "import ... as": the package has a function of the same name, which hides the module
    hub = importlib.import_module("huggingface_sb3.push_to_hub")
    if not hasattr(hub, "generate_metadata"):  # it is private now, and makes an object where a dictionary is saved
        vars(hub)["generate_metadata"] = lambda *args: hub._generate_metadata(*args).to_dict()
    save = repocard.metadata_save

    def save_card(path: Path, metadata: dict[str, Any]) -> None:
        card = path.read_text(encoding="utf-8")
        card = card.replace("python -m rl_zoo3.", "sb3-nbsp ").replace("pip install rl_zoo3", "pip install 'sb3_nbsp[zoo]'")
        path.write_text(card, encoding="utf-8")
        save(path, metadata)

    vars(repocard)["metadata_save"] = save_card


def _mend_load_from_hub() -> None:
    """rl-zoo3 2.9.2 waits for another error than huggingface_hub 2 raises for a file that a repository does not have."""
    import huggingface_sb3
    from huggingface_hub.errors import EntryNotFoundError
    from requests.exceptions import HTTPError

    load = huggingface_sb3.load_from_hub

    def load_from_hub(repo_id: str, filename: str) -> str:
        try:
            return str(load(repo_id, filename))
        except EntryNotFoundError as error:
            raise HTTPError(str(error)) from error

    huggingface_sb3.load_from_hub = load_from_hub


_LOADED: list[Any] = []  # the agent that plays

COMMANDS: dict[str, Callable[[], None]] = {
    command.__name__: command for command in (train, enjoy, record_video, push_to_hub, load_from_hub, benchmark)
}


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name in ("__help", "_h"):
        print(USAGE)
        sys.exit()
    if name == "__version":
        from sb3_nbsp import __version__

        print(__version__)
        sys.exit()
    if name not in COMMANDS:
        error = f"there is no command {sys.argv[1]!r}{did_you_mean(name, COMMANDS)}" if name else "which command?"
        print(f"{USAGE}\n\nsb3-nbsp: error: {error}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    sys.argv[0] = f"sb3-nbsp {name}"
    COMMANDS[name]()


if __name__ == "__main__":
    main()
