"""Figures of a comparison: each a function from its results to a matplotlib figure."""

from sb3_nbsp.extras import needs

with needs("plots", "A figure"):
    import matplotlib  # noqa: F401
