"""onespace's embedding function for LanceDB: after importing this module, `table.search("a red heart")` of a plain LanceDB table works.

The table's own metadata name it, with the model that made the vectors. LanceDB's "open-clip" function never calls `eval()`, so its query
vectors are wrong for models with dropout or batch norm; here queries take the way of `search`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from lancedb.embeddings import EmbeddingFunction, register

from assets.search_table.query_settings import settings
from assets.search_table.query_towers import towers_of, vectors_of
from assets.search_table.table import EMBEDDING_FUNCTION


@register(EMBEDDING_FUNCTION)
class OnespaceEmbedding(EmbeddingFunction):
    """`made_by`: the model's name in the table's column `model`."""

    made_by: str

    def ndims(self) -> int:
        return towers_of(self.made_by, settings()).dimension

    def compute_query_embeddings(self, *args: Any, **kwargs: Any) -> list[Any]:
        return list(self._vectors([args[0]]))

    def compute_source_embeddings(self, *args: Any, **kwargs: Any) -> list[Any]:
        (images,) = args
        return list(self._vectors(images.to_pylist() if isinstance(images, pa.Array | pa.ChunkedArray) else list(images)))

    def _vectors(self, queries: list[Any]) -> np.ndarray:
        chosen = settings()
        return vectors_of(queries, towers_of(self.made_by, chosen), int(chosen.curated_images.max_megapixels * 1e6))
