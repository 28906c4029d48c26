"""
NBSP on SAC in one file, to be read from top to bottom: masks on skill neurons (equations 1 to 7 of the paper), replay of
earlier tasks (equation 8).

Paper: NBSP, A Neuron-Level Framework for Balancing Stability and Plasticity in Deep Reinforcement Learning. This is the method
as printed; the package adds improvements that were measured (docs/nbsp.md), files, speed and checks. With the same seed
and options both learn the same, as a test verifies.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gymnasium as gym
import numpy as np
import torch as th
import torch.nn.functional as F
from torch import nn


@dataclass
class Options:
    seed: int = 1
    cycles: int = 2
    steps_per_task: int = 100_000
    mastery_threshold: float = 0.9  # a phase ends when so many of the last 10 episodes succeed
    hidden: int = 256
    learning_rate: float = 3e-4
    buffer_size: int = 100_000
    learning_starts: int = 5_000  # uniform random steps at the start of every phase
    batch_size: int = 256
    tau: float = 0.005
    gamma: float = 0.99
    skill_proportion: float = 0.2  # m
    mask_alpha: float = 0.2  # alpha
    identification_steps: int = 10_000  # T
    memory_size: int = 100_000  # of D_pre
    replay_interval: int = 10  # k


# --- Networks ---


class Actor(nn.Module):
    """A Gaussian, squashed by tanh."""

    def __init__(self, n_observations: int, n_actions: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_observations, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.mean = nn.Linear(hidden, n_actions)
        self.log_std = nn.Linear(hidden, n_actions)

    def forward(self, observations: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Actions in (-1, 1), shape (batch, n_actions), and their log-probabilities, shape (batch, 1)."""
        features = self.body(observations)
        gaussian = th.distributions.Normal(self.mean(features), self.log_std(features).clamp(-20, 2).exp())
        raw = gaussian.rsample()
        actions = th.tanh(raw)
        log_prob = gaussian.log_prob(raw).sum(dim=1) - th.log(1 - actions**2 + 1e-6).sum(dim=1)
        return actions, log_prob.reshape(-1, 1)


def q_network(n_inputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))


class Critics(nn.Module):
    def __init__(self, n_observations: int, n_actions: int, hidden: int) -> None:
        super().__init__()
        self.q0, self.q1 = (q_network(n_observations + n_actions, hidden) for _ in range(2))

    def forward(self, observations: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """Shape (batch, 2)."""
        inputs = th.cat([observations, actions], dim=1)
        return th.cat([self.q0(inputs), self.q1(inputs)], dim=1)


# --- Transitions ---

FIELDS = ("observations", "next_observations", "actions", "rewards", "dones")
Batch = dict[str, th.Tensor]  # each of shape (batch, width)


def to_torch(arrays: dict[str, np.ndarray], rows: np.ndarray) -> Batch:
    return {name: th.as_tensor(arrays[name][rows]) for name in FIELDS}


class ReplayBuffer:
    """D: the transitions of the current phase, and whether the step was a success."""

    def __init__(self, size: int, n_observations: int, n_actions: int) -> None:
        widths = {"observations": n_observations, "next_observations": n_observations, "actions": n_actions}
        self.arrays = {name: np.zeros((size, widths.get(name, 1)), dtype=np.float32) for name in FIELDS}
        self.success = np.zeros(size, dtype=np.float32)
        self.size, self.n_added = size, 0

    def __len__(self) -> int:
        return min(self.n_added, self.size)

    def add(self, success: bool, **transition: np.ndarray | float) -> None:
        row = self.n_added % self.size
        for name, value in transition.items():
            self.arrays[name][row] = value
        self.success[row] = success
        self.n_added += 1

    def sample(self, batch_size: int) -> Batch:
        return to_torch(self.arrays, np.random.randint(0, len(self), size=batch_size))

    def newest(self, number: int) -> np.ndarray:
        """Rows of the newest transitions, oldest first."""
        number = min(number, len(self))
        return np.arange(self.n_added - number, self.n_added) % self.size


class Memory:
    """D_pre: a random subset of each finished task's transitions, all tasks with the same share (Algorithm 2, line 21)."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.generator = size, np.random.default_rng(seed)
        self.by_task: dict[str, dict[str, np.ndarray]] = {}

    def store(self, task: str, buffer: ReplayBuffer) -> None:
        rows = buffer.newest(len(buffer))
        new = {name: buffer.arrays[name][rows] for name in FIELDS}
        old = self.by_task.get(task, {name: array[:0] for name, array in new.items()})
        self.by_task[task] = {name: np.concatenate([old[name], new[name]]) for name in FIELDS}
        share = self.size // len(self.by_task)
        for name, part in self.by_task.items():
            total = len(part["rewards"])
            if total > share:
                kept = np.sort(self.generator.choice(total, size=share, replace=False))
                self.by_task[name] = {field: array[kept] for field, array in part.items()}
        self.all = {field: np.concatenate([part[field] for part in self.by_task.values()]) for field in FIELDS}

    def sample(self, batch_size: int) -> Batch:
        return to_torch(self.all, self.generator.integers(len(self.all["rewards"]), size=batch_size))


# --- NBSP: which neurons carry the skill, and how they are held back ---


def activations(network: nn.Sequential, inputs: th.Tensor) -> th.Tensor:
    """Outputs of the two hidden layers, after their ReLU, shape (T, 2 * hidden)."""
    first = network[:2](inputs)
    return th.cat([first, network[2:4](first)], dim=1)


def scores(activation: th.Tensor, goal: th.Tensor) -> th.Tensor:
    """
    Equations 1 to 4: how often a neuron is above its mean exactly when the goal metric is.

    :param activation: a(N, t), shape (T, neurons)
    :param goal: q(t), shape (T,)
    """
    above = activation > activation.double().mean(dim=0).to(activation.dtype)  # equation 1
    success = goal.double() > goal.double().mean()  # equation 2
    r_over = (above == success[:, None]).double().mean(dim=0)  # equation 3
    return th.maximum(r_over, 1 - r_over)  # equation 4


def neuron_mask(score: th.Tensor, options: Options) -> th.Tensor:
    """Equations 5 and 7: alpha * (1 - Score) for the top share m of a network's neurons, 1 for the others."""
    skilled = th.sort(score, descending=True, stable=True).indices[: round(options.skill_proportion * len(score))]
    mask = th.ones_like(score)
    mask[skilled] = options.mask_alpha * (1 - score[skilled])
    return mask


def identify(actor: Actor, critics: Critics, buffer: ReplayBuffer, options: Options) -> dict[nn.Parameter, th.Tensor]:
    """Algorithm 1: masks of the incoming parameters of the hidden neurons, from the last T steps of a phase."""
    rows = buffer.newest(options.identification_steps)
    data, goal = to_torch(buffer.arrays, rows), th.as_tensor(buffer.success[rows])
    both = th.cat([data["observations"], data["actions"]], dim=1)
    masks: dict[nn.Parameter, th.Tensor] = {}
    for network, inputs in [(actor.body, data["observations"]), (critics.q0, both), (critics.q1, both)]:
        with th.no_grad():
            mask = neuron_mask(scores(activations(network, inputs), goal), options).float()
        weight, bias, weight_2, bias_2, *_ = network.parameters()
        part, part_2 = mask.chunk(2)
        masks |= {weight: part[:, None], bias: part, weight_2: part_2[:, None], bias_2: part_2}
    return masks


def masked_step(optimizer: th.optim.Optimizer, masks: dict[nn.Parameter, th.Tensor]) -> None:
    """
    Equation 6, on the step: Adam divides the gradient by its running size, in which a constant factor cancels, and its
    momentum moves a weight whose gradient is zero. So what is scaled is the change that Adam makes.
    """
    masked = [p for group in optimizer.param_groups for p in group["params"] if p in masks]
    before = [p.detach().clone() for p in masked]
    optimizer.step()
    with th.no_grad():
        for parameter, old in zip(masked, before, strict=True):
            parameter.copy_(th.lerp(old, parameter, masks[parameter].expand_as(parameter)))


# --- SAC ---


class Agent:
    def __init__(self, observation_space: gym.spaces.Box, action_space: gym.spaces.Box, options: Options) -> None:
        sizes = observation_space.shape[0], action_space.shape[0], options.hidden
        self.options, self.action_space = options, action_space
        self.actor = Actor(*sizes)
        self.critics, self.targets = Critics(*sizes), Critics(*sizes)
        self.targets.load_state_dict(self.critics.state_dict())
        self.log_ent_coef = th.zeros(1, requires_grad=True)
        self.target_entropy = -float(sizes[1])
        self.optimizers = [
            th.optim.Adam(parameters, lr=options.learning_rate)
            for parameters in (self.actor.parameters(), self.critics.parameters(), [self.log_ent_coef])
        ]
        self.masks_of_task: dict[str, dict[nn.Parameter, th.Tensor]] = {}
        self.masks: dict[nn.Parameter, th.Tensor] = {}
        self.n_updates = 0

    def act(self, observation: np.ndarray) -> np.ndarray:
        """A sampled action, between -1 and 1."""
        with th.no_grad():
            return self.actor(th.as_tensor(observation)[None])[0][0].numpy()

    def update(self, data: Batch) -> None:
        """One gradient step (Algorithm 2, lines 12 to 16)."""
        actor_optimizer, critic_optimizer, ent_coef_optimizer = self.optimizers
        actions, log_prob = self.actor(data["observations"])

        ent_coef = self.log_ent_coef.detach().exp()
        ent_coef_loss = -(self.log_ent_coef * (log_prob + self.target_entropy).detach()).mean()
        ent_coef_optimizer.zero_grad()
        ent_coef_loss.backward()
        ent_coef_optimizer.step()

        with th.no_grad():
            next_actions, next_log_prob = self.actor(data["next_observations"])
            next_q = self.targets(data["next_observations"], next_actions).min(dim=1, keepdim=True).values
            target = data["rewards"] + (1 - data["dones"]) * self.options.gamma * (next_q - ent_coef * next_log_prob)
        q_values = self.critics(data["observations"], data["actions"])  # (batch, 2), against (batch, 1)
        critic_loss = 0.5 * (F.mse_loss(q_values[:, :1], target) + F.mse_loss(q_values[:, 1:], target))
        critic_optimizer.zero_grad()
        critic_loss.backward()
        masked_step(critic_optimizer, self.masks)

        q_of_policy = self.critics(data["observations"], actions).min(dim=1, keepdim=True).values
        actor_loss = (ent_coef * log_prob - q_of_policy).mean()
        actor_optimizer.zero_grad()
        actor_loss.backward()
        masked_step(actor_optimizer, self.masks)

        with th.no_grad():
            for parameter, own in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                parameter.mul_(1 - self.options.tau).add_(own, alpha=self.options.tau)
        self.n_updates += 1

    def end_phase(self, task: str, buffer: ReplayBuffer) -> None:
        """Algorithm 2, lines 19 and 20. A neuron keeps the smallest mask that any task gives it."""
        if buffer.success[buffer.newest(self.options.identification_steps)].std() == 0:
            print(f"No skill neurons of {task}: all steps were successes, or none was")
            return
        self.masks_of_task[task] = found = identify(self.actor, self.critics, buffer, self.options)
        of_tasks = self.masks_of_task.values()
        self.masks = {each: th.stack([masks[each] for masks in of_tasks]).amin(dim=0) for each in found}


def train(
    tasks: dict[str, Callable[[], gym.Env]], options: Options, on_step: Callable[[Agent], None] = lambda agent: None
) -> Agent:
    """
    Learn the tasks one after the other, several times (Algorithm 2).

    :param tasks: by name, what makes each task's environment, which says ``info["success"]``
    :param on_step: called after every environment step
    """
    np.random.seed(options.seed)
    th.manual_seed(options.seed)
    envs = {name: make() for name, make in tasks.items()}
    first = next(iter(envs.values()))
    assert isinstance(first.observation_space, gym.spaces.Box) and isinstance(first.action_space, gym.spaces.Box)
    low, high = first.action_space.low, first.action_space.high
    first.action_space.seed(options.seed)
    agent = Agent(first.observation_space, first.action_space, options)
    buffer = ReplayBuffer(options.buffer_size, first.observation_space.shape[0], first.action_space.shape[0])
    memory: Memory | None = None
    for index, env in enumerate(envs.values()):
        env.reset(seed=options.seed + index)

    for phase in range(options.cycles * len(tasks)):
        task = list(tasks)[phase % len(tasks)]
        env = envs[task]
        buffer.n_added = 0  # D is emptied
        observation, _ = env.reset()
        outcomes: deque[bool] = deque(maxlen=10)
        succeeded, steps, phase_over = False, 0, False
        while not phase_over:
            is_random = steps < options.learning_starts  # the agent's actions, and those in D, are between -1 and 1
            random_action = 2.0 * ((first.action_space.sample() - low) / (high - low)) - 1.0 if is_random else None
            action = agent.act(observation) if random_action is None else random_action
            next_observation, reward, terminated, truncated, info = env.step(low + 0.5 * (action + 1.0) * (high - low))
            buffer.add(
                bool(info["success"]),
                observations=observation,
                next_observations=next_observation,
                actions=action,
                rewards=float(reward),
                dones=terminated,  # an episode that was cut off has not terminated
            )
            steps += 1
            succeeded |= bool(info["success"])
            observation = next_observation
            if steps > options.learning_starts:
                replays = (agent.n_updates + 1) % options.replay_interval == 0  # equation 8
                source = memory if replays and memory is not None else buffer
                agent.update(source.sample(options.batch_size))
            on_step(agent)
            if terminated or truncated:
                outcomes.append(succeeded)
                mastered = len(outcomes) == 10 and np.mean(outcomes) >= options.mastery_threshold
                phase_over = bool(mastered) or steps >= options.steps_per_task
                if not phase_over:
                    succeeded = False
                    observation, _ = env.reset()
        print(f"phase {phase + 1} ({task}): {steps} steps, success in {np.mean(outcomes):.2f} of the last episodes")
        agent.end_phase(task, buffer)
        if memory is None:
            memory = Memory(options.memory_size, int(np.random.SeedSequence([options.seed, phase, 100]).generate_state(1)[0]))
        memory.store(task, buffer)
    return agent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["coffee-button", "handle-press"], help="names of Meta-World tasks")
    parser.add_argument("--horizon", type=int, default=200, help="steps of an episode")
    for name, value in vars(Options()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help="see Options")
    args = vars(parser.parse_args())
    names, horizon = args.pop("tasks"), args.pop("horizon")
    th.set_num_threads(1)  # fastest for networks of this size

    from sb3_nbsp.tasks.metaworld import make_metaworld_task  # or any environments of one's own

    train({name: partial(make_metaworld_task, name, horizon) for name in names}, Options(**args))


if __name__ == "__main__":
    main()
