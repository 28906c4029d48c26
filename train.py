"""Train with RL Zoo: ``python train.py --algo nbsp_sac --env ...``."""

from sb3_nbsp.zoo.cli import train

if __name__ == "__main__":
    train()
