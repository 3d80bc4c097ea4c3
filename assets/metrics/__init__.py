"""Measures of retrieval, classification, embeddings and their uncertainty: arrays in, numbers out. Params, paths, models: the stages."""

from assets.metrics.bootstrap import PairedDifference, bootstrap_interval, bootstrap_means, paired_bootstrap, percentile_interval
from assets.metrics.captions import CaptionHits, CaptionRecall, caption_hits_at_k, caption_recall_at_k
from assets.metrics.health import (
    SameClassThreshold,
    alignment,
    drift,
    effective_rank,
    hubness,
    modality_gap,
    same_class_threshold,
    uniformity,
    unit_norm,
)
from assets.metrics.knn import knn_accuracy, knn_predictions
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import (
    average_precision,
    average_precision_at_k,
    average_precisions,
    average_precisions_at_k,
    hits_at_k,
    mean_average_precision,
    mean_average_precision_at_k,
    mean_precision_at_k,
    mean_trapezoidal_average_precision,
    precision_at_k,
    precisions_at_k,
    recall_at_k,
    trapezoidal_average_precision,
    trapezoidal_average_precisions,
)
from assets.metrics.similarity import exclude_self
from assets.metrics.zero_shot import prompt_ensemble, zero_shot_predictions

__all__ = [
    "CaptionHits",
    "CaptionRecall",
    "PairedDifference",
    "SameClassThreshold",
    "alignment",
    "average_precision",
    "average_precision_at_k",
    "average_precisions",
    "average_precisions_at_k",
    "bootstrap_interval",
    "bootstrap_means",
    "caption_hits_at_k",
    "caption_recall_at_k",
    "drift",
    "effective_rank",
    "exclude_self",
    "hits_at_k",
    "hubness",
    "knn_accuracy",
    "knn_predictions",
    "mean_average_precision",
    "mean_average_precision_at_k",
    "mean_precision_at_k",
    "mean_trapezoidal_average_precision",
    "modality_gap",
    "paired_bootstrap",
    "percentile_interval",
    "precision_at_k",
    "precisions_at_k",
    "prompt_ensemble",
    "recall_at_k",
    "relevant_ranks",
    "same_class_threshold",
    "trapezoidal_average_precision",
    "trapezoidal_average_precisions",
    "uniformity",
    "unit_norm",
    "zero_shot_predictions",
]
