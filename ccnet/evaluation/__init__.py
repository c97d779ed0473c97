"""Evaluation: methods and baselines, their metrics on scenes, the self-check, tables and pictures."""
