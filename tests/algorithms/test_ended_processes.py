"""An environment that fails in a process of its own: what is seen of it in the agent's."""

from __future__ import annotations

import os
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecMonitor
from tagged_tasks import TaggedTask, tiny

from sb3_nbsp import ContinualPPO, ContinualSAC


class Failing(TaggedTask):
    """Its fifth step raises, or ends the process without a word, as a killed one does."""

    is_killed = False

    def step(self, action: Any) -> Any:
        if self.serial == 5:
            if self.is_killed:
                os._exit(9)
            raise ValueError("the simulator is broken")
        return super().step(action)


class Killed(Failing):
    """Ends without a word."""

    is_killed = True


@pytest.mark.parametrize(("cls", "task"), [(ContinualSAC, Failing), (ContinualPPO, Killed)])
def test_the_environment_is_named(cls: type, task: Any, capfd: pytest.CaptureFixture[str]) -> None:
    env = SubprocVecEnv([lambda: task(1.0)], start_method="fork")
    agent = tiny(cls, VecMonitor(env))
    with pytest.raises(RuntimeError, match=r"The processes of environments \[0\] have ended\. .* DummyVecEnv") as caught:
        agent.learn(100)
    assert isinstance(caught.value.__cause__, (EOFError, ConnectionError))
    assert ("the simulator is broken" in capfd.readouterr().err) == (task is Failing)


class Unreachable(BaseCallback):
    """Talks to somebody else."""

    def _on_step(self) -> bool:
        raise ConnectionError("nobody there")


def test_connections_of_others_are_their_own_affair() -> None:
    with pytest.raises(ConnectionError, match="nobody there"):
        tiny(ContinualSAC, TaggedTask(1.0)).learn(30, callback=Unreachable())
