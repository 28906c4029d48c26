"""Runs of methods on task sequences, their tables and plots."""

from sb3_nbsp.extras import needs

with needs("benchmark", "sb3_nbsp.benchmark"):
    import filelock  # noqa: F401
    import yaml  # noqa: F401
