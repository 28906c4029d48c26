# Written by `python -m tools.stubs`: do not edit
import collections.abc
from typing import Any, Literal, Union

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_nbsp.algorithms.continual_discrete_sac import ContinualDiscreteSAC as ContinualDiscreteSAC
from sb3_nbsp.algorithms.continual_ppo import ContinualPPO as ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC as ContinualSAC
from sb3_nbsp.algorithms.method import KeepsReplayBuffer, Method, StartsAnew


__all__ = ['NBSPSAC', 'NBSPDiscreteSAC', 'P3O', 'SBPSAC', 'SBPDiscreteSAC', 'CyclePPO', 'CycleSAC', 'CycleDiscreteSAC', 'ReDoPPO', 'ReDoSAC', 'ReDoDiscreteSAC', 'CBPPPO', 'CBPSAC', 'CBPDiscreteSAC', 'L2InitSAC', 'L2InitDiscreteSAC', 'L2InitPPO', 'EWCSAC', 'EWCDiscreteSAC', 'PackNetSAC', 'PackNetDiscreteSAC', 'ClonExSAC', 'ClonExDiscreteSAC', 'NPCSAC', 'NPCDiscreteSAC', 'PISAC', 'PIDiscreteSAC', 'ShrinkPerturbSAC', 'ShrinkPerturbDiscreteSAC', 'ShrinkPerturbPPO', 'WeightClippingSAC', 'WeightClippingDiscreteSAC', 'WeightClippingPPO', 'FullResetSAC', 'FullResetDiscreteSAC', 'FullResetPPO', 'PerfectMemorySAC', 'PerfectMemoryDiscreteSAC', 'LayerNormSAC', 'LayerNormDiscreteSAC', 'LayerNormPPO', 'CReLUSAC', 'CReLUDiscreteSAC', 'CReLUPPO', 'ANCLSAC', 'ANCLDiscreteSAC', 'CoTASPSAC', 'CoTASPDiscreteSAC']


class NBSPSAC(Method, ContinualSAC):
    """
    Neuron-level Balance between Stability and Plasticity (NBSP) on Soft Actor-Critic: after each task, find the
    neurons whose activation correlates with success, move them only a little from then on, and
    draw every ``replay_interval``-th batch from a memory of earlier tasks.

    Paper: NBSP, A Neuron-Level Framework for Balancing Stability and Plasticity in Deep Reinforcement Learning
    (Algorithms 1 and 2). Until the first task ends it is plain SAC.

    :param masking: use gradient masking
    :param replay: use experience replay
    :param memory_size: capacity of the memory in transitions, shared equally between the tasks seen
    :param replay_interval: k; 1 draws every batch from the memory once there is one
    :param newest_share: share of the phase's transitions in D, the newest, that the memory takes its random subset from, in
        (0, 1]; the paper has all
    :param replay_ent_coef: SAC's entropy coefficient for these batches. "current": the one that the current phase learns,
        also from these batches. "own": for each transition, the one with which its task was learned, taken as the smallest
        one with which a phase of the task ended, because a short phase that resets the coefficient ends with one that is
        too large. "auto": "own" if the agent resets its coefficient when a task starts (``reset_ent_coef``), otherwise
        "current"
    :param skill_proportion: m, share of the eligible hidden neurons of a network that are skill neurons, in (0, 1]
    :param mask_alpha: α of equation 7, in [0, 1]
    :param mask_type: "soft" (equation 7) or "hard" (mask 0)
    :param mask_target: "step" scales the optimizer's step, "gradient" scales the gradient, which Adam mostly undoes
    :param mask_accumulation: "minimum" protects the neurons of all tasks, and a task that comes back replaces its own
        masks; "latest" protects only those of the last phase
    :param mask_side: which parameters of a neuron are held back: "incoming" (its weights, its bias, the gain and bias of
        its norm layer), "outgoing" (the weights that read it, those of output layers included) or "both"
    :param mask_networks: "both", "actor" or "critic"
    :param identification: "balanced" (the paper's score, corrected for chance: :func:`~sb3_nbsp.neurons.balanced_score`),
        "goal" (as printed in the paper), "activation", "weight" or "random" (its table 3), or "causal" (how much the
        network's output changes when the neuron is set to zero)
    :param identification_steps: T, number of steps on which neurons are identified
    :param identification_data: "training" takes the last T steps of the phase, "fresh" lets the trained policy act for T
        steps in an environment of its own, without learning; "auto" is "fresh" on a task sequence that is not wrapped into
        another space, and "training" elsewhere
    :param goal_metric: q(t): "step_success", "episode_success", "episode_return", a function of (reward, done, info) of a
        step, or "auto": the step's success if nearly all steps report ``info["success"]`` (or ``"is_success"``), the
        episode's success if only some do, otherwise the episode's return
    :param min_active_share: a neuron is eligible if it is above its mean on at least this share of the steps, and not above
        it on at least this share, in [0, 0.5]. With 0 every neuron is eligible, as in the paper's formula
    :param kwargs: see :class:`ContinualSAC`
    """
    masking: bool
    replay: bool
    skill_proportion: float
    mask_alpha: float
    mask_type: Literal['soft', 'hard']
    mask_target: Literal['step', 'gradient']
    mask_accumulation: Literal['minimum', 'latest']
    mask_side: Literal['incoming', 'outgoing', 'both']
    mask_networks: Literal['both', 'actor', 'critic']
    identification: Literal['goal', 'balanced', 'activation', 'weight', 'random', 'causal']
    identification_steps: int
    identification_data: Literal['auto', 'training', 'fresh']
    goal_metric: Union[Literal['auto', 'step_success', 'episode_success', 'episode_return'], collections.abc.Callable[[float, bool, dict[str, Any]], float]]
    min_active_share: float
    memory_size: int
    replay_interval: int
    replay_ent_coef: Literal['auto', 'own', 'current']
    newest_share: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        masking: bool = True,
        replay: bool = True,
        skill_proportion: float = 0.2,
        mask_alpha: float = 0.2,
        mask_type: Literal['soft', 'hard'] = 'soft',
        mask_target: Literal['step', 'gradient'] = 'step',
        mask_accumulation: Literal['minimum', 'latest'] = 'minimum',
        mask_side: Literal['incoming', 'outgoing', 'both'] = 'incoming',
        mask_networks: Literal['both', 'actor', 'critic'] = 'both',
        identification: Literal['goal', 'balanced', 'activation', 'weight', 'random', 'causal'] = 'balanced',
        identification_steps: int = 10000,
        identification_data: Literal['auto', 'training', 'fresh'] = 'auto',
        goal_metric: Union[Literal['auto', 'step_success', 'episode_success', 'episode_return'], collections.abc.Callable[[float, bool, dict[str, Any]], float]] = 'auto',
        min_active_share: float = 0.01,
        memory_size: int = 100000,
        replay_interval: int = 10,
        replay_ent_coef: Literal['auto', 'own', 'current'] = 'auto',
        newest_share: float = 1.0,
        **kwargs: Any
    ) -> None: ...


class NBSPDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`NBSPSAC` on SAC for discrete actions.

    :param masking: use gradient masking
    :param replay: use experience replay
    :param memory_size: capacity of the memory in transitions, shared equally between the tasks seen
    :param replay_interval: k; 1 draws every batch from the memory once there is one
    :param newest_share: share of the phase's transitions in D, the newest, that the memory takes its random subset from, in
        (0, 1]; the paper has all
    :param replay_ent_coef: SAC's entropy coefficient for these batches. "current": the one that the current phase learns,
        also from these batches. "own": for each transition, the one with which its task was learned, taken as the smallest
        one with which a phase of the task ended, because a short phase that resets the coefficient ends with one that is
        too large. "auto": "own" if the agent resets its coefficient when a task starts (``reset_ent_coef``), otherwise
        "current"
    :param skill_proportion: m, share of the eligible hidden neurons of a network that are skill neurons, in (0, 1]
    :param mask_alpha: α of equation 7, in [0, 1]
    :param mask_type: "soft" (equation 7) or "hard" (mask 0)
    :param mask_target: "step" scales the optimizer's step, "gradient" scales the gradient, which Adam mostly undoes
    :param mask_accumulation: "minimum" protects the neurons of all tasks, and a task that comes back replaces its own
        masks; "latest" protects only those of the last phase
    :param mask_side: which parameters of a neuron are held back: "incoming" (its weights, its bias, the gain and bias of
        its norm layer), "outgoing" (the weights that read it, those of output layers included) or "both"
    :param mask_networks: "both", "actor" or "critic"
    :param identification: "balanced" (the paper's score, corrected for chance: :func:`~sb3_nbsp.neurons.balanced_score`),
        "goal" (as printed in the paper), "activation", "weight" or "random" (its table 3), or "causal" (how much the
        network's output changes when the neuron is set to zero)
    :param identification_steps: T, number of steps on which neurons are identified
    :param identification_data: "training" takes the last T steps of the phase, "fresh" lets the trained policy act for T
        steps in an environment of its own, without learning; "auto" is "fresh" on a task sequence that is not wrapped into
        another space, and "training" elsewhere
    :param goal_metric: q(t): "step_success", "episode_success", "episode_return", a function of (reward, done, info) of a
        step, or "auto": the step's success if nearly all steps report ``info["success"]`` (or ``"is_success"``), the
        episode's success if only some do, otherwise the episode's return
    :param min_active_share: a neuron is eligible if it is above its mean on at least this share of the steps, and not above
        it on at least this share, in [0, 0.5]. With 0 every neuron is eligible, as in the paper's formula
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    masking: bool
    replay: bool
    skill_proportion: float
    mask_alpha: float
    mask_type: Literal['soft', 'hard']
    mask_target: Literal['step', 'gradient']
    mask_accumulation: Literal['minimum', 'latest']
    mask_side: Literal['incoming', 'outgoing', 'both']
    mask_networks: Literal['both', 'actor', 'critic']
    identification: Literal['goal', 'balanced', 'activation', 'weight', 'random', 'causal']
    identification_steps: int
    identification_data: Literal['auto', 'training', 'fresh']
    goal_metric: Union[Literal['auto', 'step_success', 'episode_success', 'episode_return'], collections.abc.Callable[[float, bool, dict[str, Any]], float]]
    min_active_share: float
    memory_size: int
    replay_interval: int
    replay_ent_coef: Literal['auto', 'own', 'current']
    newest_share: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        masking: bool = True,
        replay: bool = True,
        skill_proportion: float = 0.2,
        mask_alpha: float = 0.2,
        mask_type: Literal['soft', 'hard'] = 'soft',
        mask_target: Literal['step', 'gradient'] = 'step',
        mask_accumulation: Literal['minimum', 'latest'] = 'minimum',
        mask_side: Literal['incoming', 'outgoing', 'both'] = 'incoming',
        mask_networks: Literal['both', 'actor', 'critic'] = 'both',
        identification: Literal['goal', 'balanced', 'activation', 'weight', 'random', 'causal'] = 'balanced',
        identification_steps: int = 10000,
        identification_data: Literal['auto', 'training', 'fresh'] = 'auto',
        goal_metric: Union[Literal['auto', 'step_success', 'episode_success', 'episode_return'], collections.abc.Callable[[float, bool, dict[str, Any]], float]] = 'auto',
        min_active_share: float = 0.01,
        memory_size: int = 100000,
        replay_interval: int = 10,
        replay_ent_coef: Literal['auto', 'own', 'current'] = 'auto',
        newest_share: float = 1.0,
        **kwargs: Any
    ) -> None: ...


class P3O(Method, ContinualPPO):
    """
    Plastic PPO (P3O): every ``reset_frequency`` steps, the next share ``reset_rate`` of every hidden layer of the actor is
    re-initialized, and the previous policy is distilled into the rest of the network.

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (Algorithm 2, equation 4).
    Until the first reset it is plain PPO.

    :param distill_alpha: α of equation 4: weight of KL(teacher ‖ student), in [0, 1]
    :param distill_threshold: τ, the loss at which distillation ends
    :param max_distill_epochs: give up after this many epochs; training continues, and "distillation/at_cap" is recorded
    :param min_distill_epochs: at least this many epochs; the paper's algorithms make one even if the loss is already small
    :param distill_states: number of states to draw from a replay buffer
    :param distill_batch_size: number of states in a minibatch
    :param distill_learning_rate: learning rate of the distillation's own Adam
    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualPPO`
    """
    reset_frequency: int
    reset_rate: float
    clear_moments: bool
    renew_shared: bool
    distill_alpha: float
    distill_threshold: float
    max_distill_epochs: int
    min_distill_epochs: int
    distill_states: int
    distill_batch_size: int
    distill_learning_rate: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 50000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        distill_alpha: float = 0.4,
        distill_threshold: float = 0.01,
        max_distill_epochs: int = 100,
        min_distill_epochs: int = 1,
        distill_states: int = 8192,
        distill_batch_size: int = 256,
        distill_learning_rate: float = 0.0003,
        **kwargs: Any
    ) -> None: ...


class SBPSAC(Method, ContinualSAC):
    """
    Sustainable Backup Propagation (SBP) on Soft Actor-Critic: what :class:`P3O` is on PPO. The states to distil on are drawn
    from the replay buffer (P3O paper, appendix A.5 and table 6).

    :param distill_alpha: α of equation 4: weight of KL(teacher ‖ student), in [0, 1]
    :param distill_threshold: τ, the loss at which distillation ends
    :param max_distill_epochs: give up after this many epochs; training continues, and "distillation/at_cap" is recorded
    :param min_distill_epochs: at least this many epochs; the paper's algorithms make one even if the loss is already small
    :param distill_states: number of states to draw from a replay buffer
    :param distill_batch_size: number of states in a minibatch
    :param distill_learning_rate: learning rate of the distillation's own Adam
    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualSAC`
    """
    reset_frequency: int
    reset_rate: float
    clear_moments: bool
    renew_shared: bool
    distill_alpha: float
    distill_threshold: float
    max_distill_epochs: int
    min_distill_epochs: int
    distill_states: int
    distill_batch_size: int
    distill_learning_rate: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 10000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        distill_alpha: float = 0.8,
        distill_threshold: float = 0.01,
        max_distill_epochs: int = 100,
        min_distill_epochs: int = 1,
        distill_states: int = 8192,
        distill_batch_size: int = 256,
        distill_learning_rate: float = 0.0003,
        **kwargs: Any
    ) -> None: ...


class SBPDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`SBPSAC` on SAC for discrete actions.

    :param distill_alpha: α of equation 4: weight of KL(teacher ‖ student), in [0, 1]
    :param distill_threshold: τ, the loss at which distillation ends
    :param max_distill_epochs: give up after this many epochs; training continues, and "distillation/at_cap" is recorded
    :param min_distill_epochs: at least this many epochs; the paper's algorithms make one even if the loss is already small
    :param distill_states: number of states to draw from a replay buffer
    :param distill_batch_size: number of states in a minibatch
    :param distill_learning_rate: learning rate of the distillation's own Adam
    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    reset_frequency: int
    reset_rate: float
    clear_moments: bool
    renew_shared: bool
    distill_alpha: float
    distill_threshold: float
    max_distill_epochs: int
    min_distill_epochs: int
    distill_states: int
    distill_batch_size: int
    distill_learning_rate: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 10000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        distill_alpha: float = 0.8,
        distill_threshold: float = 0.01,
        max_distill_epochs: int = 100,
        min_distill_epochs: int = 1,
        distill_states: int = 8192,
        distill_batch_size: int = 256,
        distill_learning_rate: float = 0.0003,
        **kwargs: Any
    ) -> None: ...


class CyclePPO(Method, ContinualPPO):
    """
    PPO with the cycle reset only: "PPO+Cycle" of the P3O paper.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualPPO`
    """
    reset_frequency: int
    reset_rate: float
    clear_moments: bool
    renew_shared: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 50000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any
    ) -> None: ...


class CycleSAC(Method, ContinualSAC):
    """
    SAC with the cycle reset only.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualSAC`
    """
    reset_frequency: int
    reset_rate: float
    clear_moments: bool
    renew_shared: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 10000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any
    ) -> None: ...


class CycleDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`CycleSAC` on SAC for discrete actions.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    reset_frequency: int
    reset_rate: float
    clear_moments: bool
    renew_shared: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 10000,
        reset_rate: float = 0.01,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any
    ) -> None: ...


class ReDoPPO(Method, ContinualPPO):
    """
    PPO that recycles the least active neurons: "PPO+ReDo" of the P3O paper.

    Papers: The Dormant Neuron Phenomenon in Deep Reinforcement Learning (Sokar et al., 2023), whose own way of choosing
    them is ``dormant_threshold``; Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (table
    3).

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]; has no effect if ``dormant_threshold`` is
        given
    :param dormant_threshold: τ; None for the share γ
    :param redo_states: number of states to draw from a replay buffer (of a rollout, all are used)
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualPPO`
    """
    reset_frequency: int
    reset_rate: float
    dormant_threshold: float | None
    redo_states: int
    clear_moments: bool
    renew_shared: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 50000,
        reset_rate: float = 0.01,
        dormant_threshold: float | None = None,
        redo_states: int = 8192,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any
    ) -> None: ...


class ReDoSAC(Method, ContinualSAC):
    """
    SAC that recycles the least active neurons: see :class:`ReDoPPO`.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]; has no effect if ``dormant_threshold`` is
        given
    :param dormant_threshold: τ; None for the share γ
    :param redo_states: number of states to draw from a replay buffer (of a rollout, all are used)
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualSAC`
    """
    reset_frequency: int
    reset_rate: float
    dormant_threshold: float | None
    redo_states: int
    clear_moments: bool
    renew_shared: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 10000,
        reset_rate: float = 0.01,
        dormant_threshold: float | None = None,
        redo_states: int = 8192,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any
    ) -> None: ...


class ReDoDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`ReDoSAC` on SAC for discrete actions.

    :param reset_frequency: F, in environment steps
    :param reset_rate: γ, share of each layer that a reset renews, in (0, 1]; has no effect if ``dormant_threshold`` is
        given
    :param dormant_threshold: τ; None for the share γ
    :param redo_states: number of states to draw from a replay buffer (of a rollout, all are used)
    :param clear_moments: also clear the optimizer's moments of the parameters that are reset
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    reset_frequency: int
    reset_rate: float
    dormant_threshold: float | None
    redo_states: int
    clear_moments: bool
    renew_shared: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        reset_frequency: int = 10000,
        reset_rate: float = 0.01,
        dormant_threshold: float | None = None,
        redo_states: int = 8192,
        clear_moments: bool = True,
        renew_shared: bool = False,
        **kwargs: Any
    ) -> None: ...


class CBPPPO(Method, ContinualPPO):
    """
    PPO that replaces a tiny share of its least useful neurons at every gradient step: "PPO+CBP" of the P3O paper, with
    the settings of CBP's own authors. Those of the P3O paper are in the zoo's hyperparameters.

    Papers: Loss of plasticity in deep continual learning (Dohare et al., 2024); Stay Hungry, Keep Learning: Sustainable
    Plasticity for Deep Reinforcement Learning (tables 3 and 4).

    :param replacement_rate: share of the eligible neurons that are replaced per gradient step, in (0, 1]
    :param maturity_threshold: age above which a neuron is eligible, in gradient steps
    :param decay_rate: η, of the running averages, in [0, 1)
    :param clear_moments: also clear the optimizer's moments of the incoming and outgoing weights of replaced neurons
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param networks: "actor", "critic" or "both": whose neurons to replace. For SAC's critics with continuous actions, the
        features extractor is left out, because its output is read together with the action
    :param kwargs: see :class:`ContinualPPO`
    """
    replacement_rate: float
    maturity_threshold: int
    decay_rate: float
    clear_moments: bool
    renew_shared: bool
    networks: Literal['actor', 'critic', 'both']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        replacement_rate: float = 0.0001,
        maturity_threshold: int = 10000,
        decay_rate: float = 0.99,
        clear_moments: bool = True,
        renew_shared: bool = False,
        networks: Literal['actor', 'critic', 'both'] = 'actor',
        **kwargs: Any
    ) -> None: ...


class CBPSAC(Method, ContinualSAC):
    """
    SAC with continual backpropagation: see :class:`CBPPPO`.

    :param replacement_rate: share of the eligible neurons that are replaced per gradient step, in (0, 1]
    :param maturity_threshold: age above which a neuron is eligible, in gradient steps
    :param decay_rate: η, of the running averages, in [0, 1)
    :param clear_moments: also clear the optimizer's moments of the incoming and outgoing weights of replaced neurons
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param networks: "actor", "critic" or "both": whose neurons to replace. For SAC's critics with continuous actions, the
        features extractor is left out, because its output is read together with the action
    :param kwargs: see :class:`ContinualSAC`
    """
    replacement_rate: float
    maturity_threshold: int
    decay_rate: float
    clear_moments: bool
    renew_shared: bool
    networks: Literal['actor', 'critic', 'both']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        replacement_rate: float = 0.0001,
        maturity_threshold: int = 10000,
        decay_rate: float = 0.99,
        clear_moments: bool = True,
        renew_shared: bool = False,
        networks: Literal['actor', 'critic', 'both'] = 'actor',
        **kwargs: Any
    ) -> None: ...


class CBPDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`CBPSAC` on SAC for discrete actions.

    :param replacement_rate: share of the eligible neurons that are replaced per gradient step, in (0, 1]
    :param maturity_threshold: age above which a neuron is eligible, in gradient steps
    :param decay_rate: η, of the running averages, in [0, 1)
    :param clear_moments: also clear the optimizer's moments of the incoming and outgoing weights of replaced neurons
    :param renew_shared: also renew the layers of a features extractor that actor and critic share
    :param networks: "actor", "critic" or "both": whose neurons to replace. For SAC's critics with continuous actions, the
        features extractor is left out, because its output is read together with the action
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    replacement_rate: float
    maturity_threshold: int
    decay_rate: float
    clear_moments: bool
    renew_shared: bool
    networks: Literal['actor', 'critic', 'both']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        replacement_rate: float = 0.0001,
        maturity_threshold: int = 10000,
        decay_rate: float = 0.99,
        clear_moments: bool = True,
        renew_shared: bool = False,
        networks: Literal['actor', 'critic', 'both'] = 'actor',
        **kwargs: Any
    ) -> None: ...


class L2InitSAC(Method, ContinualSAC):
    """
    SAC whose actor and critics are pulled back to their initial parameters.

    Paper: Maintaining Plasticity in Continual Learning via Regenerative Regularization (Kumar et al., 2023).

    :param l2_init_weight: λ, which the paper varies between 1e-5 and 1e-2; 0 for no pull
    :param kwargs: see :class:`ContinualSAC`
    """
    l2_init_weight: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        l2_init_weight: float = 0.0001,
        **kwargs: Any
    ) -> None: ...


class L2InitDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`L2InitSAC` on SAC for discrete actions.

    :param l2_init_weight: λ, which the paper varies between 1e-5 and 1e-2; 0 for no pull
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    l2_init_weight: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        l2_init_weight: float = 0.0001,
        **kwargs: Any
    ) -> None: ...


class L2InitPPO(Method, ContinualPPO):
    """
    The method of :class:`L2InitSAC` on PPO.

    :param l2_init_weight: λ, which the paper varies between 1e-5 and 1e-2; 0 for no pull
    :param kwargs: see :class:`ContinualPPO`
    """
    l2_init_weight: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        l2_init_weight: float = 0.0001,
        **kwargs: Any
    ) -> None: ...


class EWCSAC(Method, ContinualSAC):
    """
    SAC with elastic weight consolidation: parameters that mattered for the policy of earlier phases are pulled back to their
    values at that time.

    Papers: Overcoming catastrophic forgetting in neural networks (Kirkpatrick et al., 2017); Continual World (Wołczyk et al.,
    2021). Until the first phase ends it is plain SAC.

    :param ewc_coef: λ of the actor; 0 for no pull
    :param ewc_critic_coef: λ of the critics, whose F is larger by orders of magnitude; 0 for no pull
    :param accumulate: how several phases are combined. "sum": F ← F + F_new with the latest θ*, so that a task that comes
        back counts twice; "online": F ← γF + F_new; "separate": each task has its own F and θ*, and a task that comes back
        replaces them
    :param ewc_decay: γ of "online", in [0, 1]; an error with another ``accumulate``
    :param fisher_states: number of states to compute F in
    :param fisher_window: these states are drawn from this many of the last transitions of a phase
    :param kwargs: see :class:`ContinualSAC`
    """
    ewc_coef: float
    ewc_critic_coef: float
    accumulate: Literal['sum', 'online', 'separate']
    ewc_decay: float
    fisher_states: int
    fisher_window: int
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        ewc_coef: float = 100.0,
        ewc_critic_coef: float = 0.0,
        accumulate: Literal['sum', 'online', 'separate'] = 'sum',
        ewc_decay: float = 0.9,
        fisher_states: int = 2560,
        fisher_window: int = 10000,
        **kwargs: Any
    ) -> None: ...


class EWCDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`EWCSAC` on SAC for discrete actions.

    :param ewc_coef: λ of the actor; 0 for no pull
    :param ewc_critic_coef: λ of the critics, whose F is larger by orders of magnitude; 0 for no pull
    :param accumulate: how several phases are combined. "sum": F ← F + F_new with the latest θ*, so that a task that comes
        back counts twice; "online": F ← γF + F_new; "separate": each task has its own F and θ*, and a task that comes back
        replaces them
    :param ewc_decay: γ of "online", in [0, 1]; an error with another ``accumulate``
    :param fisher_states: number of states to compute F in
    :param fisher_window: these states are drawn from this many of the last transitions of a phase
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    ewc_coef: float
    ewc_critic_coef: float
    accumulate: Literal['sum', 'online', 'separate']
    ewc_decay: float
    fisher_states: int
    fisher_window: int
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        ewc_coef: float = 100.0,
        ewc_critic_coef: float = 0.0,
        accumulate: Literal['sum', 'online', 'separate'] = 'sum',
        ewc_decay: float = 0.9,
        fisher_states: int = 2560,
        fisher_window: int = 10000,
        **kwargs: Any
    ) -> None: ...


class PackNetSAC(Method, ContinualSAC):
    """
    PackNet on Soft Actor-Critic: every weight of the actor belongs to one task, and later tasks get the weights that earlier
    ones do not need. The agent is told which task it plays: ``set_task(name)`` before ``predict()``. Until the first task ends
    it is plain SAC.

    Papers: PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning (Mallya & Lazebnik, 2018); Continual World:
    A Robotic Benchmark For Continual Reinforcement Learning (Wołczyk et al., 2021).

    :param n_tasks: number of tasks there will be, at most 255; None: as many as the task sequence has
    :param retrain_steps: gradient steps on D with the weights that a task keeps
    :param revisit: "reuse": a task that comes back has its weights again; "new": every phase has weights of its own, and a
        task is played with its latest ones
    :param kwargs: see :class:`ContinualSAC`
    """
    n_tasks: int | None
    retrain_steps: int
    revisit: Literal['reuse', 'new']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        n_tasks: int | None = None,
        retrain_steps: int = 100000,
        revisit: Literal['reuse', 'new'] = 'reuse',
        **kwargs: Any
    ) -> None: ...


class PackNetDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`PackNetSAC` on SAC for discrete actions.

    :param n_tasks: number of tasks there will be, at most 255; None: as many as the task sequence has
    :param retrain_steps: gradient steps on D with the weights that a task keeps
    :param revisit: "reuse": a task that comes back has its weights again; "new": every phase has weights of its own, and a
        task is played with its latest ones
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    n_tasks: int | None
    retrain_steps: int
    revisit: Literal['reuse', 'new']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        n_tasks: int | None = None,
        retrain_steps: int = 100000,
        revisit: Literal['reuse', 'new'] = 'reuse',
        **kwargs: Any
    ) -> None: ...


class ClonExSAC(Method, ContinualSAC):
    """
    SAC that clones its own earlier behaviour in remembered states of earlier tasks: ClonEx-SAC.

    Paper: Disentangling Transfer in Continual Reinforcement Learning (Wołczyk et al., 2022). Until the first phase ends it is
    plain SAC.

    :param clone_coef: λ; 0 for no cloning of the policy
    :param clone_critic_coef: :math:`\lambda_Q`; 0 for no cloning of the critics
    :param clone_states: number of states to keep of each task
    :param clone_batch_size: \|B\|
    :param best_return_exploration: in the warm-up of a new task, play the policies of earlier tasks instead of random
        actions: each of them for an episode, then the one with the highest mean return
    :param kwargs: see :class:`ContinualSAC`
    """
    clone_coef: float
    clone_critic_coef: float
    clone_states: int
    clone_batch_size: int
    best_return_exploration: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        clone_coef: float = 100.0,
        clone_critic_coef: float = 0.0,
        clone_states: int = 10000,
        clone_batch_size: int = 128,
        best_return_exploration: bool = False,
        **kwargs: Any
    ) -> None: ...


class ClonExDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`ClonExSAC` on SAC for discrete actions.

    :param clone_coef: λ; 0 for no cloning of the policy
    :param clone_critic_coef: :math:`\lambda_Q`; 0 for no cloning of the critics
    :param clone_states: number of states to keep of each task
    :param clone_batch_size: \|B\|
    :param best_return_exploration: in the warm-up of a new task, play the policies of earlier tasks instead of random
        actions: each of them for an episode, then the one with the highest mean return
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    clone_coef: float
    clone_critic_coef: float
    clone_states: int
    clone_batch_size: int
    best_return_exploration: bool
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        clone_coef: float = 100.0,
        clone_critic_coef: float = 0.0,
        clone_states: int = 10000,
        clone_batch_size: int = 128,
        best_return_exploration: bool = False,
        **kwargs: Any
    ) -> None: ...


class NPCSAC(Method, ContinualSAC):
    """
    SAC with neuron-level plasticity control: neurons that have been important learn more slowly and finally
    freeze.

    Paper: Overcoming Catastrophic Forgetting by Neuron-Level Plasticity Control (Paik et al., 2020).

    :param npc_beta: β; None: four times the number of gradient steps of the first phase, in which all neurons learn at the
        full rate (with ``npc_clock="phases"``: 4); infinity: no effect
    :param npc_alpha: α
    :param npc_delta: δ of the running average, in [0, 1)
    :param output_layers: also treat the units of output layers as neurons; otherwise they always learn at the full rate
    :param npc_clock: "steps": as described above and in the paper; "phases": t counts finished phases, and :math:`C_i` is
        the largest one that the neuron had at the end of a phase, so that rates are fixed within a phase
    :param kwargs: see :class:`ContinualSAC`
    """
    npc_beta: float | None
    npc_alpha: float
    npc_delta: float
    output_layers: bool
    npc_clock: Literal['steps', 'phases']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        npc_beta: float | None = None,
        npc_alpha: float = 1.0,
        npc_delta: float = 0.999,
        output_layers: bool = False,
        npc_clock: Literal['steps', 'phases'] = 'steps',
        **kwargs: Any
    ) -> None: ...


class NPCDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`NPCSAC` on SAC for discrete actions.

    :param npc_beta: β; None: four times the number of gradient steps of the first phase, in which all neurons learn at the
        full rate (with ``npc_clock="phases"``: 4); infinity: no effect
    :param npc_alpha: α
    :param npc_delta: δ of the running average, in [0, 1)
    :param output_layers: also treat the units of output layers as neurons; otherwise they always learn at the full rate
    :param npc_clock: "steps": as described above and in the paper; "phases": t counts finished phases, and :math:`C_i` is
        the largest one that the neuron had at the end of a phase, so that rates are fixed within a phase
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    npc_beta: float | None
    npc_alpha: float
    npc_delta: float
    output_layers: bool
    npc_clock: Literal['steps', 'phases']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        npc_beta: float | None = None,
        npc_alpha: float = 1.0,
        npc_delta: float = 0.999,
        output_layers: bool = False,
        npc_clock: Literal['steps', 'phases'] = 'steps',
        **kwargs: Any
    ) -> None: ...


class PISAC(Method, ContinualSAC):
    """
    SAC with plasticity injection: when a task begins, a new head learns instead of the old one, without changing the networks'
    outputs at that moment. Until the first phase ends it is plain SAC.

    Paper: Deep Reinforcement Learning with Plasticity Injection (Nikishin et al., 2023).

    :param injection_networks: "both", "critic" (the paper's) or "actor"
    :param head_layers: number of linear layers in the head, from the output: 2 are the last hidden layer and the output
        layer
    :param injection_steps: environment steps at which to inject, in ascending order; None for the starts of phases
    :param max_injections: maximum number of injections; None for no limit
    :param kwargs: see :class:`ContinualSAC`
    """
    injection_networks: Literal['both', 'critic', 'actor']
    head_layers: int
    injection_steps: collections.abc.Sequence[int] | None
    max_injections: int | None
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        injection_networks: Literal['both', 'critic', 'actor'] = 'both',
        head_layers: int = 2,
        injection_steps: collections.abc.Sequence[int] | None = None,
        max_injections: int | None = None,
        **kwargs: Any
    ) -> None: ...


class PIDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`PISAC` on SAC for discrete actions.

    :param injection_networks: "both", "critic" (the paper's) or "actor"
    :param head_layers: number of linear layers in the head, from the output: 2 are the last hidden layer and the output
        layer
    :param injection_steps: environment steps at which to inject, in ascending order; None for the starts of phases
    :param max_injections: maximum number of injections; None for no limit
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    injection_networks: Literal['both', 'critic', 'actor']
    head_layers: int
    injection_steps: collections.abc.Sequence[int] | None
    max_injections: int | None
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        injection_networks: Literal['both', 'critic', 'actor'] = 'both',
        head_layers: int = 2,
        injection_steps: collections.abc.Sequence[int] | None = None,
        max_injections: int | None = None,
        **kwargs: Any
    ) -> None: ...


class ShrinkPerturbSAC(Method, ContinualSAC):
    """
    SAC whose networks are shrunk towards 0, with a small multiple of new networks added, when a phase starts or at a fixed
    interval.

    Paper: On Warm-Starting Neural Network Training (Ash & Adams, 2020).

    :param shrink_factor: p, in [0, 1]; 1 for no shrinking
    :param perturb_scale: σ; 0 for no noise
    :param shrink_interval: gradient steps between two changes, each of which draws a whole policy; None for the starts of
        phases
    :param kwargs: see :class:`ContinualSAC`
    """
    shrink_factor: float
    perturb_scale: float
    shrink_interval: int | None
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        shrink_factor: float = 0.8,
        perturb_scale: float = 0.1,
        shrink_interval: int | None = None,
        **kwargs: Any
    ) -> None: ...


class ShrinkPerturbDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`ShrinkPerturbSAC` on SAC for discrete actions.

    :param shrink_factor: p, in [0, 1]; 1 for no shrinking
    :param perturb_scale: σ; 0 for no noise
    :param shrink_interval: gradient steps between two changes, each of which draws a whole policy; None for the starts of
        phases
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    shrink_factor: float
    perturb_scale: float
    shrink_interval: int | None
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        shrink_factor: float = 0.8,
        perturb_scale: float = 0.1,
        shrink_interval: int | None = None,
        **kwargs: Any
    ) -> None: ...


class ShrinkPerturbPPO(Method, ContinualPPO):
    """
    The method of :class:`ShrinkPerturbSAC` on PPO.

    :param shrink_factor: p, in [0, 1]; 1 for no shrinking
    :param perturb_scale: σ; 0 for no noise
    :param shrink_interval: gradient steps between two changes, each of which draws a whole policy; None for the starts of
        phases
    :param kwargs: see :class:`ContinualPPO`
    """
    shrink_factor: float
    perturb_scale: float
    shrink_interval: int | None
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        shrink_factor: float = 0.8,
        perturb_scale: float = 0.1,
        shrink_interval: int | None = None,
        **kwargs: Any
    ) -> None: ...


class WeightClippingSAC(Method, ContinualSAC):
    """
    SAC whose weights stay within a multiple of their initial range.

    Paper: Weight Clipping for Deep Continual and Reinforcement Learning (Elsayed et al., 2024).

    :param clip_factor: κ, above 0; ``math.inf`` for no clipping
    :param kwargs: see :class:`ContinualSAC`
    """
    clip_factor: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        clip_factor: float = 3.0,
        **kwargs: Any
    ) -> None: ...


class WeightClippingDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`WeightClippingSAC` on SAC for discrete actions.

    :param clip_factor: κ, above 0; ``math.inf`` for no clipping
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    clip_factor: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        clip_factor: float = 3.0,
        **kwargs: Any
    ) -> None: ...


class WeightClippingPPO(Method, ContinualPPO):
    """
    The method of :class:`WeightClippingSAC` on PPO.

    :param clip_factor: κ, above 0; ``math.inf`` for no clipping
    :param kwargs: see :class:`ContinualPPO`
    """
    clip_factor: float
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        clip_factor: float = 3.0,
        **kwargs: Any
    ) -> None: ...


class FullResetSAC(Method, ContinualSAC):
    """
    SAC that begins every phase with new networks: fully plastic, without memory. Until then it is plain SAC.

    :param kwargs: see :class:`ContinualSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class FullResetDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`FullResetSAC` on SAC for discrete actions.

    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class FullResetPPO(Method, ContinualPPO):
    """
    The method of :class:`FullResetSAC` on PPO.

    :param kwargs: see :class:`ContinualPPO`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class PerfectMemorySAC(KeepsReplayBuffer, Method, ContinualSAC):
    """
    SAC that keeps the transitions of all tasks in its replay buffer, and samples uniformly from them.

    :param kwargs: see :class:`ContinualSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class PerfectMemoryDiscreteSAC(KeepsReplayBuffer, Method, ContinualDiscreteSAC):
    """
    The method of :class:`PerfectMemorySAC` on SAC for discrete actions.

    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class LayerNormSAC(Method, ContinualSAC):
    """
    SAC with a layer norm before every activation function in the hidden layers of actor and critics.

    Papers: Layer Normalization (Ba et al., 2016); Understanding Plasticity in Neural Networks (Lyle et al., 2023).

    :param kwargs: see :class:`ContinualSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class LayerNormDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`LayerNormSAC` on SAC for discrete actions.

    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class LayerNormPPO(Method, ContinualPPO):
    """
    The method of :class:`LayerNormSAC` on PPO.

    :param kwargs: see :class:`ContinualPPO`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class CReLUSAC(Method, ContinualSAC):
    """
    SAC with concatenated ReLUs, which never die, in all hidden layers. ``net_arch`` counts neurons, each of which has
    two features: halve it to get layers as wide as those of SAC.

    Paper: Loss of Plasticity in Continual Deep Reinforcement Learning (Abbas et al., 2023).

    :param kwargs: see :class:`ContinualSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class CReLUDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`CReLUSAC` on SAC for discrete actions.

    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class CReLUPPO(Method, ContinualPPO):
    """
    The method of :class:`CReLUSAC` on PPO.

    :param kwargs: see :class:`ContinualPPO`
    """
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        **kwargs: Any
    ) -> None: ...


class ANCLSAC(Method, ContinualSAC):
    """
    SAC with auxiliary networks: elastic weight consolidation plus a pull towards copies that learn the new task freely.

    Paper: Achieving a Better Stability-Plasticity Trade-off via Auxiliary Networks in Continual Learning (Kim et al., 2023).
    Until the first phase ends it is plain SAC.

    :param ewc_coef: see :class:`EWC`
    :param ewc_critic_coef: see :class:`EWC`
    :param ancl_coef: :math:`\lambda_a` of the actor
    :param ancl_critic_coef: :math:`\lambda_a` of the critics. If both are 0, there are no auxiliary networks
    :param aux_fisher_interval: gradient steps after which :math:`F^{aux}` is computed again
    :param aux_fisher_states: number of states to compute it in, drawn from all of the phase's transitions in the replay
        buffer
    :param accumulate: see :class:`EWC`
    :param ewc_decay: see :class:`EWC`
    :param fisher_states: see :class:`EWC`
    :param fisher_window: see :class:`EWC`
    :param kwargs: see :class:`ContinualSAC`
    """
    ewc_coef: float
    ewc_critic_coef: float
    ancl_coef: float
    ancl_critic_coef: float
    aux_fisher_interval: int
    aux_fisher_states: int
    accumulate: Literal['sum', 'online', 'separate']
    ewc_decay: float
    fisher_states: int
    fisher_window: int
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        ewc_coef: float = 100.0,
        ewc_critic_coef: float = 0.0,
        ancl_coef: float = 1.0,
        ancl_critic_coef: float = 0.0,
        aux_fisher_interval: int = 5000,
        aux_fisher_states: int = 640,
        accumulate: Literal['sum', 'online', 'separate'] = 'sum',
        ewc_decay: float = 0.9,
        fisher_states: int = 2560,
        fisher_window: int = 10000,
        **kwargs: Any
    ) -> None: ...


class ANCLDiscreteSAC(Method, ContinualDiscreteSAC):
    """
    The method of :class:`ANCLSAC` on SAC for discrete actions.

    :param ewc_coef: see :class:`EWC`
    :param ewc_critic_coef: see :class:`EWC`
    :param ancl_coef: :math:`\lambda_a` of the actor
    :param ancl_critic_coef: :math:`\lambda_a` of the critics. If both are 0, there are no auxiliary networks
    :param aux_fisher_interval: gradient steps after which :math:`F^{aux}` is computed again
    :param aux_fisher_states: number of states to compute it in, drawn from all of the phase's transitions in the replay
        buffer
    :param accumulate: see :class:`EWC`
    :param ewc_decay: see :class:`EWC`
    :param fisher_states: see :class:`EWC`
    :param fisher_window: see :class:`EWC`
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    ewc_coef: float
    ewc_critic_coef: float
    ancl_coef: float
    ancl_critic_coef: float
    aux_fisher_interval: int
    aux_fisher_states: int
    accumulate: Literal['sum', 'online', 'separate']
    ewc_decay: float
    fisher_states: int
    fisher_window: int
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        ewc_coef: float = 100.0,
        ewc_critic_coef: float = 0.0,
        ancl_coef: float = 1.0,
        ancl_critic_coef: float = 0.0,
        aux_fisher_interval: int = 5000,
        aux_fisher_states: int = 640,
        accumulate: Literal['sum', 'online', 'separate'] = 'sum',
        ewc_decay: float = 0.9,
        fisher_states: int = 2560,
        fisher_window: int = 10000,
        **kwargs: Any
    ) -> None: ...


class CoTASPSAC(StartsAnew, Method, ContinualSAC):
    """
    Continual task allocation by sparse prompting (CoTASP) on Soft Actor-Critic: a sparse code of the task's name selects the
    hidden units of the actor that play it. The agent is told which task it plays: ``set_task(name)`` before ``predict()``.

    Paper: Continual Task Allocation in Meta-Policy Network via Sparse Prompting (Yang et al., 2023).

    :param weight_steps: gradient steps on the weights, which alternate with those on the codes
    :param code_steps: gradient steps on the codes, which alternate with those on the weights
    :param lasso_weight: λ of :func:`~sb3_nbsp.interventions.sparse_coding.lasso`: the larger, the fewer units play a task
    :param distill_steps: gradient steps at the start of a phase that pull the free part of a new task's units towards
        random actions, in states of the previous phase; moments are cleared after them
    :param mask_log_std: protect the weights of the standard deviation as those of the mean. With False, all tasks share
        them, as in the authors' code, and only the mean action of an earlier task's policy is preserved
    :param task_embeddings: for each task, a vector of any length, the same for all; None: the names' words and trigrams,
        :func:`~sb3_nbsp.interventions.sparse_coding.embed_text`
    :param revisit: "reuse": a task that comes back has its units again, and only its codes learn; "new": every phase has
        units of its own, and a task is played with its latest ones
    :param kwargs: see :class:`ContinualSAC`
    """
    weight_steps: int
    code_steps: int
    lasso_weight: float
    distill_steps: int
    mask_log_std: bool
    task_embeddings: collections.abc.Mapping[str, collections.abc.Sequence[float]] | None
    revisit: Literal['reuse', 'new']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        weight_steps: int = 990,
        code_steps: int = 10,
        lasso_weight: float = 0.001,
        distill_steps: int = 20000,
        mask_log_std: bool = True,
        task_embeddings: collections.abc.Mapping[str, collections.abc.Sequence[float]] | None = None,
        revisit: Literal['reuse', 'new'] = 'reuse',
        **kwargs: Any
    ) -> None: ...


class CoTASPDiscreteSAC(StartsAnew, Method, ContinualDiscreteSAC):
    """
    The method of :class:`CoTASPSAC` on SAC for discrete actions.

    :param weight_steps: gradient steps on the weights, which alternate with those on the codes
    :param code_steps: gradient steps on the codes, which alternate with those on the weights
    :param lasso_weight: λ of :func:`~sb3_nbsp.interventions.sparse_coding.lasso`: the larger, the fewer units play a task
    :param distill_steps: gradient steps at the start of a phase that pull the free part of a new task's units towards
        random actions, in states of the previous phase; moments are cleared after them
    :param mask_log_std: protect the weights of the standard deviation as those of the mean. With False, all tasks share
        them, as in the authors' code, and only the mean action of an earlier task's policy is preserved
    :param task_embeddings: for each task, a vector of any length, the same for all; None: the names' words and trigrams,
        :func:`~sb3_nbsp.interventions.sparse_coding.embed_text`
    :param revisit: "reuse": a task that comes back has its units again, and only its codes learn; "new": every phase has
        units of its own, and a task is played with its latest ones
    :param kwargs: see :class:`ContinualDiscreteSAC`
    """
    weight_steps: int
    code_steps: int
    lasso_weight: float
    distill_steps: int
    mask_log_std: bool
    task_embeddings: collections.abc.Mapping[str, collections.abc.Sequence[float]] | None
    revisit: Literal['reuse', 'new']
    def __init__(
        self, policy: str | type[BasePolicy], env: GymEnv | str, *args: Any,
        weight_steps: int = 990,
        code_steps: int = 10,
        lasso_weight: float = 0.001,
        distill_steps: int = 20000,
        mask_log_std: bool = True,
        task_embeddings: collections.abc.Mapping[str, collections.abc.Sequence[float]] | None = None,
        revisit: Literal['reuse', 'new'] = 'reuse',
        **kwargs: Any
    ) -> None: ...
