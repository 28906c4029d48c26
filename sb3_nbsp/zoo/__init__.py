"""rl-zoo3 with this package's algorithms and environments."""
