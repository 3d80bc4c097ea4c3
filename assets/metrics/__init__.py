"""Measures of retrieval, classification and embeddings, and their uncertainty: arrays in, numbers out.

`from assets.metrics import mean_average_precision` finds each public function in its module. The code of the stages imports the modules
themselves, so that a stage depends on those that it uses and on no others.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "bootstrap": ("PairedDifference", "bootstrap_interval", "bootstrap_means", "paired_bootstrap", "percentile_interval"),
    "health": (
        "alignment",
        "drift",
        "effective_rank",
        "hubness",
        "modality_gap",
        "same_class_threshold",
        "uniformity",
    ),
    "knn": ("knn_predictions",),
    "norms": ("unit_norm",),
    "ranking": ("relevant_ranks",),
    "retrieval": (
        "average_precision",
        "average_precisions",
        "hits_at_k",
        "mean_average_precision",
        "precision_at_k",
        "recall_at_k",
        "trapezoidal_average_precision",
    ),
    "similarity": ("exclude_self",),
    "zero_shot": ("prompt_ensemble", "zero_shot_predictions"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"assets.metrics.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
