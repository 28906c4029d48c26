"""Changes to how an agent learns, one per file. They combine freely."""

from sb3_nbsp.interventions.ancl import ANCL as ANCL
from sb3_nbsp.interventions.base import Intervention as Intervention
from sb3_nbsp.interventions.base import Phase as Phase
from sb3_nbsp.interventions.clonex import ClonEx as ClonEx
from sb3_nbsp.interventions.compressed_buffer import CompressedReplayBuffer as CompressedReplayBuffer
from sb3_nbsp.interventions.container import Interventions as Interventions
from sb3_nbsp.interventions.continual_backprop import ContinualBackprop as ContinualBackprop
from sb3_nbsp.interventions.cotasp import CoTASP as CoTASP
from sb3_nbsp.interventions.cycle_reset import CycleReset as CycleReset
from sb3_nbsp.interventions.ewc import EWC as EWC
from sb3_nbsp.interventions.experience_replay import ExperienceReplay as ExperienceReplay
from sb3_nbsp.interventions.full_reset import FullReset as FullReset
from sb3_nbsp.interventions.gradient_masking import GradientMasking as GradientMasking
from sb3_nbsp.interventions.inner_distillation import InnerDistillation as InnerDistillation
from sb3_nbsp.interventions.l2_init import L2Init as L2Init
from sb3_nbsp.interventions.npc import NPC as NPC
from sb3_nbsp.interventions.packnet import PackNet as PackNet
from sb3_nbsp.interventions.perfect_memory import PerfectMemory as PerfectMemory
from sb3_nbsp.interventions.plasticity_injection import PlasticityInjection as PlasticityInjection
from sb3_nbsp.interventions.random_reset import RandomReset as RandomReset
from sb3_nbsp.interventions.recovery_training import RecoveryTraining as RecoveryTraining
from sb3_nbsp.interventions.redo import ReDo as ReDo
from sb3_nbsp.interventions.reset_callback import ResetCallback as ResetCallback
from sb3_nbsp.interventions.shrink_perturb import ShrinkPerturb as ShrinkPerturb
from sb3_nbsp.interventions.weight_clipping import WeightClipping as WeightClipping
