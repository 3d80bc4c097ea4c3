"""Stage evaluation@RECIPE: measure models/<recipe> on the test split and on public benchmarks, write data/evaluation/<recipe>/.

How the test split is measured is measuring.py's, and public benchmarks are the package benchmarks'.
"""

from __future__ import annotations

import logging
from pathlib import Path

from assets import artifacts
from assets.engine import HERE, Engine
from assets.evaluation.benchmarks.registry import KNN_K, KNN_TEMPERATURE
from assets.evaluation.benchmarks.run import find_benchmarks, measure_benchmarks
from assets.evaluation.measuring import measure, open_encoder, read_split, summary
from assets.evaluations import write_evaluation
from assets.params import Evaluation as Settings

logger = logging.getLogger(__name__)


def evaluate(settings: Settings, recipe: str, engine: Engine = HERE) -> None:
    """Write metrics.json and benchmarks.json (percent), image_embeddings.npy, text_embeddings.npy, per_query.parquet, per_class.parquet,
    made_with.json.

    image_embeddings: float32 [N, d], in test order. text_embeddings: float32 [C + T, d], the class names as they are, in the order of the
    labels, then the distinct captions in their order. per_query: N rows in test order; per_class: C rows in the order of the labels.
    made_with.json: the model's recipes and the settings that the numbers of metrics.json follow from.
    """
    test = read_split()
    benchmarks = find_benchmarks(Path(settings.benchmarks_root))  # a wrong layout is reported before hours of encoding
    encoder = open_encoder(artifacts.model_dir(recipe), settings, engine)
    evaluation = measure(recipe, encoder, test, settings)
    on_benchmarks = measure_benchmarks(benchmarks, encoder, knn_k=KNN_K, knn_temperature=KNN_TEMPERATURE)
    write_evaluation(evaluation, on_benchmarks)
    logger.info("%s: %s percent", recipe, summary(evaluation.metrics))
