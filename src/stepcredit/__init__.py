"""Credit assignment for process-supervised reinforcement learning of LLM reasoners."""

from stepcredit.data import Advantages, Rollouts, Steps, TokenAdvantages, Tokens

__version__ = "0.1.0"

__all__ = ["Advantages", "Rollouts", "Steps", "TokenAdvantages", "Tokens"]
