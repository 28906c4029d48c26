"""Figures of a comparison: each a function from its results to a matplotlib figure."""
