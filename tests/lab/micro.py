"""A supervised start and a decoder small enough to train in a test."""

from stepcredit.lab.model import ModelSettings
from stepcredit.lab.warmstart import WarmStartSettings

MICRO_WARM = WarmStartSettings(
    model=ModelSettings(width=32, layers=2, heads=2, feed_forward=64),
    batch_size=32,
    learning_rate=1e-2,
    floor=0.0,
    target=0.0,
    ceiling=1.0,
    check_from=120,
    check_every=120,
    check_problems=8,
    check_samples=1,
)
