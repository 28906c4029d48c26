"""
The methods, each an agent with interventions. Options, their defaults and their texts are the interventions'; what
editors and type checkers see of them stands in ``methods.pyi``, which ``python -m tools.stubs`` writes.
"""

from __future__ import annotations

from types import MappingProxyType

from sb3_nbsp.algorithms.continual_discrete_sac import ContinualDiscreteSAC
from sb3_nbsp.algorithms.continual_ppo import ContinualPPO
from sb3_nbsp.algorithms.continual_sac import ContinualSAC
from sb3_nbsp.algorithms.method import KeepsReplayBuffer, Method, StartsAnew, on
from sb3_nbsp.interventions import (
    ANCL,
    EWC,
    NPC,
    ClonEx,
    ContinualBackprop,
    CoTASP,
    CycleReset,
    ExperienceReplay,
    FullReset,
    GradientMasking,
    InnerDistillation,
    L2Init,
    PackNet,
    PerfectMemory,
    PlasticityInjection,
    ReDo,
    ShrinkPerturb,
    WeightClipping,
)
from sb3_nbsp.neurons import CReLU


class NBSPSAC(Method, ContinualSAC):
    """
    Neuron-level Balance between Stability and Plasticity (NBSP) on Soft Actor-Critic: after each task, find the
    neurons whose activation correlates with success, move them only a little from then on, and
    draw every ``replay_interval``-th batch from a memory of earlier tasks.

    Paper: NBSP, A Neuron-Level Framework for Balancing Stability and Plasticity in Deep Reinforcement Learning
    (Algorithms 1 and 2). Until the first task ends it is plain SAC.
    """

    parts = (GradientMasking, ExperienceReplay)
    switches = MappingProxyType(
        {"masking": (GradientMasking, "use gradient masking"), "replay": (ExperienceReplay, "use experience replay")}
    )


NBSPDiscreteSAC = on(ContinualDiscreteSAC, NBSPSAC)


class P3O(Method, ContinualPPO):
    """
    Plastic PPO (P3O): every ``reset_frequency`` steps, the next share ``reset_rate`` of every hidden layer of the actor is
    re-initialized, and the previous policy is distilled into the rest of the network.

    Paper: Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (Algorithm 2, equation 4).
    Until the first reset it is plain PPO.
    """

    parts = (CycleReset, InnerDistillation)


class SBPSAC(Method, ContinualSAC):
    """
    Sustainable Backup Propagation (SBP) on Soft Actor-Critic: what :class:`P3O` is on PPO. The states to distil on are drawn
    from the replay buffer (P3O paper, appendix A.5 and table 6).
    """

    parts = P3O.parts
    defaults = MappingProxyType({"reset_frequency": 10_000, "distill_alpha": 0.8})


SBPDiscreteSAC = on(ContinualDiscreteSAC, SBPSAC)


class CyclePPO(Method, ContinualPPO):
    """PPO with the cycle reset only: "PPO+Cycle" of the P3O paper."""

    parts = (CycleReset,)


class CycleSAC(Method, ContinualSAC):
    """SAC with the cycle reset only."""

    parts = (CycleReset,)
    defaults = MappingProxyType({"reset_frequency": 10_000})


CycleDiscreteSAC = on(ContinualDiscreteSAC, CycleSAC)


class ReDoPPO(Method, ContinualPPO):
    """
    PPO that recycles the least active neurons: "PPO+ReDo" of the P3O paper.

    Papers: The Dormant Neuron Phenomenon in Deep Reinforcement Learning (Sokar et al., 2023), whose own way of choosing
    them is ``dormant_threshold``; Stay Hungry, Keep Learning: Sustainable Plasticity for Deep Reinforcement Learning (table
    3).
    """

    parts = (ReDo,)


class ReDoSAC(Method, ContinualSAC):
    """SAC that recycles the least active neurons: see :class:`ReDoPPO`."""

    parts = (ReDo,)
    defaults = MappingProxyType({"reset_frequency": 10_000})


ReDoDiscreteSAC = on(ContinualDiscreteSAC, ReDoSAC)


class CBPPPO(Method, ContinualPPO):
    """
    PPO that replaces a tiny share of its least useful neurons at every gradient step: "PPO+CBP" of the P3O paper, with
    the settings of CBP's own authors. Those of the P3O paper are in the zoo's hyperparameters.

    Papers: Loss of plasticity in deep continual learning (Dohare et al., 2024); Stay Hungry, Keep Learning: Sustainable
    Plasticity for Deep Reinforcement Learning (tables 3 and 4).
    """

    parts = (ContinualBackprop,)


class CBPSAC(Method, ContinualSAC):
    """SAC with continual backpropagation: see :class:`CBPPPO`."""

    parts = (ContinualBackprop,)


CBPDiscreteSAC = on(ContinualDiscreteSAC, CBPSAC)


class L2InitSAC(Method, ContinualSAC):
    """
    SAC whose actor and critics are pulled back to their initial parameters.

    Paper: Maintaining Plasticity in Continual Learning via Regenerative Regularization (Kumar et al., 2023).
    """

    parts = (L2Init,)


L2InitDiscreteSAC = on(ContinualDiscreteSAC, L2InitSAC)
L2InitPPO = on(ContinualPPO, L2InitSAC)


class EWCSAC(Method, ContinualSAC):
    """
    SAC with elastic weight consolidation: parameters that mattered for the policy of earlier phases are pulled back to their
    values at that time.

    Papers: Overcoming catastrophic forgetting in neural networks (Kirkpatrick et al., 2017); Continual World (Wołczyk et al.,
    2021). Until the first phase ends it is plain SAC.
    """

    parts = (EWC,)


EWCDiscreteSAC = on(ContinualDiscreteSAC, EWCSAC)


class PackNetSAC(Method, ContinualSAC):
    """
    PackNet on Soft Actor-Critic: every weight of the actor belongs to one task, and later tasks get the weights that earlier
    ones do not need. The agent is told which task it plays: ``set_task(name)`` before ``predict()``. Until the first task ends
    it is plain SAC.

    Papers: PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning (Mallya & Lazebnik, 2018); Continual World:
    A Robotic Benchmark For Continual Reinforcement Learning (Wołczyk et al., 2021).
    """

    parts = (PackNet,)


PackNetDiscreteSAC = on(ContinualDiscreteSAC, PackNetSAC)


class ClonExSAC(Method, ContinualSAC):
    """
    SAC that clones its own earlier behaviour in remembered states of earlier tasks: ClonEx-SAC.

    Paper: Disentangling Transfer in Continual Reinforcement Learning (Wołczyk et al., 2022). Until the first phase ends it is
    plain SAC.
    """

    parts = (ClonEx,)


ClonExDiscreteSAC = on(ContinualDiscreteSAC, ClonExSAC)


class NPCSAC(Method, ContinualSAC):
    """
    SAC with neuron-level plasticity control: neurons that have been important learn more slowly and finally
    freeze.

    Paper: Overcoming Catastrophic Forgetting by Neuron-Level Plasticity Control (Paik et al., 2020).
    """

    parts = (NPC,)


NPCDiscreteSAC = on(ContinualDiscreteSAC, NPCSAC)


class PISAC(Method, ContinualSAC):
    """
    SAC with plasticity injection: when a task begins, a new head learns instead of the old one, without changing the networks'
    outputs at that moment. Until the first phase ends it is plain SAC.

    Paper: Deep Reinforcement Learning with Plasticity Injection (Nikishin et al., 2023).
    """

    parts = (PlasticityInjection,)


PIDiscreteSAC = on(ContinualDiscreteSAC, PISAC)


class ShrinkPerturbSAC(Method, ContinualSAC):
    """
    SAC whose networks are shrunk towards 0, with a small multiple of new networks added, when a phase starts or at a fixed
    interval.

    Paper: On Warm-Starting Neural Network Training (Ash & Adams, 2020).
    """

    parts = (ShrinkPerturb,)


ShrinkPerturbDiscreteSAC = on(ContinualDiscreteSAC, ShrinkPerturbSAC)
ShrinkPerturbPPO = on(ContinualPPO, ShrinkPerturbSAC)


class WeightClippingSAC(Method, ContinualSAC):
    """
    SAC whose weights stay within a multiple of their initial range.

    Paper: Weight Clipping for Deep Continual and Reinforcement Learning (Elsayed et al., 2024).
    """

    parts = (WeightClipping,)


WeightClippingDiscreteSAC = on(ContinualDiscreteSAC, WeightClippingSAC)
WeightClippingPPO = on(ContinualPPO, WeightClippingSAC)


class FullResetSAC(Method, ContinualSAC):
    """SAC that begins every phase with new networks: fully plastic, without memory. Until then it is plain SAC."""

    parts = (FullReset,)


FullResetDiscreteSAC = on(ContinualDiscreteSAC, FullResetSAC)
FullResetPPO = on(ContinualPPO, FullResetSAC)


class PerfectMemorySAC(KeepsReplayBuffer, Method, ContinualSAC):
    """SAC that keeps the transitions of all tasks in its replay buffer, and samples uniformly from them."""

    parts = (PerfectMemory,)


PerfectMemoryDiscreteSAC = on(ContinualDiscreteSAC, PerfectMemorySAC)


class LayerNormSAC(Method, ContinualSAC):
    """
    SAC with a layer norm before every activation function in the hidden layers of actor and critics.

    Papers: Layer Normalization (Ba et al., 2016); Understanding Plasticity in Neural Networks (Lyle et al., 2023).
    """

    own_policy_kwargs = MappingProxyType({"layer_norm": True})


LayerNormDiscreteSAC = on(ContinualDiscreteSAC, LayerNormSAC)
LayerNormPPO = on(ContinualPPO, LayerNormSAC)


class CReLUSAC(Method, ContinualSAC):
    """
    SAC with concatenated ReLUs, which never die, in all hidden layers. ``net_arch`` counts neurons, each of which has
    two features: halve it to get layers as wide as those of SAC.

    Paper: Loss of Plasticity in Continual Deep Reinforcement Learning (Abbas et al., 2023).
    """

    own_policy_kwargs = MappingProxyType({"activation_fn": CReLU})


CReLUDiscreteSAC = on(ContinualDiscreteSAC, CReLUSAC)
CReLUPPO = on(ContinualPPO, CReLUSAC)


class ANCLSAC(Method, ContinualSAC):
    """
    SAC with auxiliary networks: elastic weight consolidation plus a pull towards copies that learn the new task freely.

    Paper: Achieving a Better Stability-Plasticity Trade-off via Auxiliary Networks in Continual Learning (Kim et al., 2023).
    Until the first phase ends it is plain SAC.
    """

    parts = (ANCL,)


ANCLDiscreteSAC = on(ContinualDiscreteSAC, ANCLSAC)


class CoTASPSAC(StartsAnew, Method, ContinualSAC):
    """
    Continual task allocation by sparse prompting (CoTASP) on Soft Actor-Critic: a sparse code of the task's name selects the
    hidden units of the actor that play it. The agent is told which task it plays: ``set_task(name)`` before ``predict()``.

    Paper: Continual Task Allocation in Meta-Policy Network via Sparse Prompting (Yang et al., 2023).
    """

    parts = (CoTASP,)


CoTASPDiscreteSAC = on(ContinualDiscreteSAC, CoTASPSAC)


# At the end, as it finds the classes above it only
__all__ = [name for name, each in globals().items() if isinstance(each, type) and each.__module__ == __name__]
