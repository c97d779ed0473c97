"""Evaluation: metrics over scenes, baselines, the self-check and reports."""
