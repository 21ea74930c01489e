"""Metrics by name: one file and one key of conf/evaluate.yaml each."""

from diffusion_art.evaluation.metrics.metric import Figure, Metric, at_least, metrics_of

__all__ = ["Figure", "Metric", "at_least", "metrics_of"]
