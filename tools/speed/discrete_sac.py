"""
SAC for discrete actions on images: a gradient step, and the loop of four environment steps and one gradient step, against the
structure of CleanRL's ``sac_atari.py`` written plainly: the same networks, the same batch, the same buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecTransposeImage
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F

from sb3_nbsp import ContinualDiscreteSAC
from tools.speed.turns import Row, take_turns

BATCH = 64
GAMMA = 0.99
TARGET_SCALE = 0.89
ADAM: dict[str, float] = {"lr": 1e-4, "eps": 1e-4}
GOAL, MEDIUM_GOAL = 1.2, 1.5
WIDTH = 768


class Images(gym.Env):
    """Spaces of an Atari game; it is never stepped."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(6)


def network(n_actions: int, width: int) -> nn.Sequential:
    """
    :param n_actions: outputs
    :param width: of the two hidden linear layers
    :return: the network of the paper, for the actor as for a critic
    """
    return nn.Sequential(
        *(
            nn.Conv2d(4, 32, 8, 4),
            nn.ReLU(),
            nn.Conv2d(32, 64, 4, 2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
        ),
        *(nn.Linear(3136, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, n_actions)),
    )


class Plain:
    """
    An agent of a single file, as CleanRL writes them: every network divides the images itself, Adam is PyTorch's default.

    :param buffer: where its transitions are
    :param n_actions: number of actions
    :param width: of the hidden linear layers
    """

    def __init__(self, buffer: ReplayBuffer, n_actions: int, width: int = WIDTH) -> None:
        self.buffer = buffer
        self.actor, self.q1, self.q2, self.target1, self.target2 = (network(n_actions, width) for _ in range(5))
        self.target1.load_state_dict(self.q1.state_dict())
        self.target2.load_state_dict(self.q2.state_dict())
        self.q_optimizer = th.optim.Adam([*self.q1.parameters(), *self.q2.parameters()], **ADAM)  # type: ignore[arg-type]
        self.actor_optimizer = th.optim.Adam(self.actor.parameters(), **ADAM)  # type: ignore[arg-type]
        self.log_alpha = th.zeros(1, requires_grad=True)
        self.alpha_optimizer = th.optim.Adam([self.log_alpha], **ADAM)  # type: ignore[arg-type]
        self.target_entropy = TARGET_SCALE * np.log(n_actions)

    def act(self, observations: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param observations: a batch
        :return: actions, log-probabilities and probabilities of all actions
        """
        logits = self.actor(observations / 255.0)
        policy = Categorical(logits=logits)
        return policy.sample(), F.log_softmax(logits, dim=1), policy.probs

    def train(self, gradient_steps: int) -> None:
        """
        :param gradient_steps: number of gradient steps
        """
        for _ in range(gradient_steps):
            data, alpha = self.buffer.sample(BATCH), self.log_alpha.exp().item()
            with th.no_grad():
                _, log_prob, prob = self.act(data.next_observations)
                q_values = th.min(self.target1(data.next_observations / 255.0), self.target2(data.next_observations / 255.0))
                values = (prob * (q_values - alpha * log_prob)).sum(dim=1, keepdim=True)
                target = data.rewards + (1 - data.dones) * GAMMA * values
            own = [net(data.observations / 255.0).gather(1, data.actions.long()) for net in (self.q1, self.q2)]
            _step(self.q_optimizer, F.mse_loss(own[0], target) + F.mse_loss(own[1], target))
            _, log_prob, prob = self.act(data.observations)
            with th.no_grad():
                q_values = th.min(self.q1(data.observations / 255.0), self.q2(data.observations / 255.0))
            _step(self.actor_optimizer, (prob * (alpha * log_prob - q_values)).mean())
            excess = (log_prob + self.target_entropy).detach()
            _step(self.alpha_optimizer, (prob.detach() * (-self.log_alpha.exp() * excess)).mean())

    def learn(self, env: VecEnv, steps: int) -> None:
        """
        :param env: vectorized environment with one game
        :param steps: environment steps, with a gradient step after each fourth
        """
        observations: Any = env.reset()
        for step in range(1, steps + 1):
            with th.no_grad():
                actions = self.act(th.as_tensor(observations).float())[0].numpy()
            following, rewards, dones, infos = env.step(actions)
            self.buffer.add(observations, following, actions, rewards, dones, infos)  # type: ignore[arg-type]
            observations = following
            if step % 4 == 0:
                self.train(1)


def _step(optimizer: th.optim.Optimizer, loss: th.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def make(env: VecEnv, width: int = WIDTH, **kwargs: Any) -> ContinualDiscreteSAC:
    """
    :param env: games
    :param width: of the hidden linear layers
    :param kwargs: further arguments
    :return: an agent whose replay buffer holds random transitions
    """
    policy_kwargs = {
        "features_extractor_kwargs": {"features_dim": width},
        "net_arch": [width],
        "optimizer_kwargs": {"eps": ADAM["eps"]},
    }
    options: dict[str, Any] = {
        "learning_rate": ADAM["lr"],
        "buffer_size": 2000,
        "learning_starts": 0,
        "batch_size": BATCH,
        "train_freq": 4,
        "tau": 1.0,
        "target_update_interval": 8000,
        "policy_kwargs": policy_kwargs,
        "device": "cpu",
        **kwargs,
    }
    model = ContinualDiscreteSAC("CnnPolicy", env, **options)
    model.set_logger(Logger(None, []))
    fill(model.replay_buffer)
    return model


def fill(buffer: ReplayBuffer | None) -> None:
    """
    :param buffer: gets random transitions
    """
    assert buffer is not None
    rng = np.random.default_rng(0)
    for array in (buffer.observations, buffer.next_observations):
        array[:] = rng.integers(0, 256, array.shape, dtype=np.uint8)
    buffer.actions[:] = rng.integers(0, 6, buffer.actions.shape)
    buffer.rewards[:] = rng.standard_normal(buffer.rewards.shape)
    buffer.full = True


def pong() -> VecEnv:
    """
    :return: one game of Pong, 84 × 84 grey frames, four of them, channels first
    """
    gym.register_envs(ale_py)
    return VecTransposeImage(VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0), 4))


def measure(rounds: int, steps: int, width: int = WIDTH) -> list[Row]:
    """
    :param rounds: number of turns
    :param steps: gradient steps per turn
    :param width: of the hidden linear layers
    :return: lines of the table
    """
    rows = []
    for what, make_env in (("step", lambda: DummyVecEnv([Images])), ("loop", pong)):
        envs: dict[str, VecEnv] = {name: make_env() for name in ("CleanRL", "ours", "medium")}
        models = {name: make(envs[name], width, matmul_precision=_PRECISIONS[name]) for name in ("ours", "medium")}
        buffer = ReplayBuffer(2000, Images.observation_space, Images.action_space, device="cpu")
        fill(buffer)
        plain = Plain(buffer, 6, width)
        tasks: dict[str, Callable[[], object]]
        if what == "step":
            tasks = {name: partial(model.train, gradient_steps=steps, batch_size=BATCH) for name, model in models.items()}
            tasks["CleanRL"] = partial(plain.train, steps)
        else:
            tasks = {name: partial(model.learn, 4 * steps) for name, model in models.items()}
            tasks["CleanRL"] = partial(plain.learn, envs["CleanRL"], 4 * steps)
        times = take_turns(tasks, rounds, f"Discrete SAC, {what}")
        title = "Discrete SAC step" if what == "step" else "Discrete SAC, 4 steps of Pong and a gradient step"
        rows += [
            Row(f"{title}: as CleanRL writes it", 1000 * times["CleanRL"] / steps, "ms"),
            Row(f"{title}: ContinualDiscreteSAC", times["CleanRL"] / times["ours"], "× CleanRL", GOAL),
            Row(f'{title}: ContinualDiscreteSAC, "medium"', times["CleanRL"] / times["medium"], "× CleanRL", MEDIUM_GOAL),
        ]
    return rows


_PRECISIONS: dict[str, Any] = {"ours": "highest", "medium": "medium"}
