"""Comparisons of methods on environments over seeds: runs, tables, figures, report."""

from sb3_nbsp.extras import needs

with needs("benchmark", "sb3_nbsp.benchmark"):
    import filelock  # noqa: F401
    import yaml  # noqa: F401
