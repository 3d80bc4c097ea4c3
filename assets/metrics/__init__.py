"""Measures of retrieval, classification and their uncertainty: arrays in, numbers out. Params, paths and models are the stages' concern."""

from assets.metrics.bootstrap import PairedDifference, bootstrap_interval, bootstrap_means, paired_bootstrap, percentile_interval
from assets.metrics.knn import knn_accuracy, knn_predictions
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import average_precision, average_precisions, hits_at_k, mean_average_precision, recall_at_k
from assets.metrics.similarity import exclude_self
from assets.metrics.zero_shot import prompt_ensemble, zero_shot_predictions

__all__ = [
    "PairedDifference",
    "average_precision",
    "average_precisions",
    "bootstrap_interval",
    "bootstrap_means",
    "exclude_self",
    "hits_at_k",
    "knn_accuracy",
    "knn_predictions",
    "mean_average_precision",
    "paired_bootstrap",
    "percentile_interval",
    "prompt_ensemble",
    "recall_at_k",
    "relevant_ranks",
    "zero_shot_predictions",
]
