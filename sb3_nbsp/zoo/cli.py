"""The zoo's commands with this package's algorithms and environments: ``sb3-nbsp train``, ``sb3-nbsp enjoy``, ..."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Callable

USAGE = """usage: sb3-nbsp COMMAND [options]

RL Zoo's commands with the algorithms nbsp_sac and continual_sac and with task sequences:

  train         train an agent, or search hyperparameters with -optimize
  enjoy         watch a trained agent; on a sequence it plays the tasks in turn
  record_video  record a video of a trained agent
  push_to_hub   upload a trained agent to the Hugging Face Hub
  load_from_hub download a trained agent

sb3-nbsp COMMAND --help lists the options of a command."""


def train() -> None:
    """Run rl-zoo3's train with this package registered."""
    _prepare()
    import rl_zoo3.train

    from sb3_nbsp.zoo.manager import SequenceExperimentManager

    rl_zoo3.train.ExperimentManager = SequenceExperimentManager  # type: ignore[misc]
    rl_zoo3.train.train()


def enjoy() -> None:
    """Run rl-zoo3's enjoy with this package registered."""
    _prepare()
    _play_tasks_in_turn()
    import rl_zoo3.enjoy

    rl_zoo3.enjoy.enjoy()


def record_video() -> None:
    """Run rl-zoo3's record_video with this package registered."""
    _prepare()
    _play_tasks_in_turn()
    runpy.run_module("rl_zoo3.record_video", run_name="__main__")


def push_to_hub() -> None:
    """Run rl-zoo3's push_to_hub with this package registered."""
    _prepare()
    _play_tasks_in_turn()
    _mend_push_to_hub()
    runpy.run_module("rl_zoo3.push_to_hub", run_name="__main__")


def load_from_hub() -> None:
    """Run rl-zoo3's load_from_hub with this package registered."""
    _prepare()
    runpy.run_module("rl_zoo3.load_from_hub", run_name="__main__")


def _prepare() -> None:
    try:
        from sb3_nbsp.zoo.registration import register
    except ImportError as error:
        raise SystemExit(f"The zoo's commands need rl_zoo3: pip install 'sb3_nbsp[zoo]' ({error})") from error
    register()


def _play_tasks_in_turn() -> None:
    """Someone who watches an agent wants to see all tasks of a sequence: unless told otherwise, rotate."""
    from sb3_nbsp.zoo.manager import is_sequence

    arguments = sys.argv
    env_id = arguments[arguments.index("--env") + 1] if "--env" in arguments[:-1] else ""
    import gymnasium as gym

    if env_id not in gym.registry or not is_sequence(env_id):
        return
    if "--env-kwargs" not in arguments:
        arguments += ["--env-kwargs", "rotate:True"]
    elif not any(argument.startswith("rotate:") for argument in arguments):
        arguments.insert(arguments.index("--env-kwargs") + 1, "rotate:True")


def _mend_push_to_hub() -> None:
    """rl-zoo3 2.9.2 imports a name that sb3-team-hf-integration 3.2 has made private."""
    # Not "import ... as": the package has a function of the same name, which hides the module
    hub = importlib.import_module("huggingface_sb3.push_to_hub")
    if not hasattr(hub, "generate_metadata"):
        hub.generate_metadata = hub._generate_metadata


COMMANDS: dict[str, Callable[[], None]] = {
    command.__name__: command for command in (train, enjoy, record_video, push_to_hub, load_from_hub)
}


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name not in COMMANDS:
        print(USAGE)
        sys.exit(0 if name in ("__help", "_h") else 2)
    del sys.argv[1]
    sys.argv[0] = f"sb3-nbsp {name}"
    COMMANDS[name]()


if __name__ == "__main__":
    main()
