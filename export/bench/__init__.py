"""Benchmarks of inference and training, and their reports."""
