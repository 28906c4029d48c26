"""Runs of methods on task sequences, their tables and plots."""
