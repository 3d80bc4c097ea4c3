"""The model that made a table's vectors, found and loaded once, for queries: texts and pictures to vectors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from assets import artifacts
from assets.addresses import fetch_folder, is_remote
from assets.clip.kept_graphs import GRAPHS
from assets.clip.onnx_towers import OnnxTowers
from assets.errors import UserError
from assets.params import Params
from assets.search_table.query_pictures import QueryPictures
from assets.search_table.table import MODELS

if TYPE_CHECKING:
    from assets.clip.encoder import Encoder

logger = logging.getLogger(__name__)

FETCHED = artifacts.WORK / "models"  # of tables at addresses
SHOWN = 60  # characters of a query in a message
ANOTHER_BASE = (
    "Use words of a language that the base knows, or take a multilingual base in params.yaml: base_clip: {source: open_clip,"
    " model: xlm-roberta-base-ViT-B-32, pretrained: laion5b_s13b_b90k}."
)


class Reading(Protocol):
    """How a tokenizer reads a text; assets.clip.readable explains each."""

    @property
    def words(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def cut(self) -> bool: ...
    @property
    def unreadable(self) -> bool: ...
    @property
    def spelled(self) -> bool: ...


class QueryTowers(Protocol):
    """Both towers of one model. Vectors are float32 [N, d], unit norm where the model gives any."""

    @property
    def dimension(self) -> int: ...

    def texts(self, texts: Sequence[str]) -> np.ndarray: ...

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray: ...

    def readings(self, texts: Sequence[str]) -> Sequence[Reading]: ...


class TorchTowers:
    """The model directory itself, in eval mode. The first use imports torch."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._encoder.texts_now(texts)

    def pictures(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        return self._encoder.images_now(QueryPictures(pictures))

    def readings(self, texts: Sequence[str]) -> Sequence[Reading]:
        from assets.clip.readable import read_texts

        return list(read_texts(self._encoder.tokenizer, texts))


def towers_of(made_by: str, settings: Params) -> QueryTowers:
    """The model called `made_by` in the table's column `model`; UserError where it is not here: another one's distances mean nothing."""
    if settings.search.towers != "torch" and (graphs := _exported(made_by, settings.search.towers)):
        return graphs
    recipe = made_by.partition("@")[0]
    own = settings.search_table
    found = []
    for place in (
        _beside_the_table(made_by, settings.search.table),
        artifacts.model_dir(recipe),
    ):  # beside the table, as it was published; else the stage's
        directory = place.resolve()
        files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(directory.rglob("*")) if file.is_file()]
        now = _sha256(directory, tuple(files)) if files else None
        if now and artifacts.model_name(recipe, now) == made_by:
            return _torch_towers(directory, now, own.device, own.precision, own.batch_size)
        found.append(f"{place} is {f'now {artifacts.model_name(recipe, now)}' if now else 'not there'}")
    raise UserError(
        f"the table was made by {made_by}, but {' and '.join(found)}: vectors of two models cannot be compared. `make versions` lists the"
        " table's versions and their models; `make rollback VERSION=…` goes to one whose model is here, `dvc checkout` brings back the"
        " model of this git revision, and `dvc repro --force --single-item search_table` publishes what is here."
    )


def _beside_the_table(name: str, table: str) -> Path:
    """Where a model lies that was published with a table; from an address it is fetched once."""
    if not is_remote(table):
        return MODELS / name
    if not (FETCHED / name).is_dir():
        logger.info("fetching the model %s from %s", name, table)
        with artifacts.replacing(FETCHED / name) as temporary:
            fetch_folder(f"{table}/{MODELS.name}/{name}", temporary)
    return FETCHED / name


def _exported(made_by: str, precision: str) -> QueryTowers | None:
    """The graphs of this very model, which lie beside the table; None where it has none of this precision."""
    folder = GRAPHS / made_by / precision
    try:
        return _onnx_towers(folder.resolve(), folder.stat().st_mtime_ns)
    except (OSError, ValueError):  # none was made, or it is being made anew
        return None


@lru_cache(maxsize=2)  # two versions side by side
def _onnx_towers(folder: Path, changed_ns: int) -> OnnxTowers:
    """`changed_ns` is there to load it again after another export."""
    return OnnxTowers(folder)


@lru_cache(maxsize=8)
def _sha256(directory: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """`files` (name, size, time of change) is there to hash again when one of them changes."""
    return artifacts.sha256_of(directory)


@lru_cache(maxsize=2)  # two versions side by side
def _torch_towers(directory: Path, sha256: str, device: str, precision: str, batch_size: int) -> TorchTowers:
    from assets.clip.encoder import Encoder

    return TorchTowers(Encoder(directory, device=device, precision=precision, batch_size=batch_size))


def check_readable(texts: list[str], towers: QueryTowers) -> list[str]:
    """UserError for a text of which the tokenizer knows nothing: all such texts would find the same pictures. Returns lesser complaints."""
    said = []
    for text, reading in zip(texts, towers.readings(texts), strict=True):
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        if reading.unreadable:
            raise UserError(
                f"the table's model cannot read the query {shown!r}: its tokenizer knows no part of it. Search by a picture. {ANOTHER_BASE}"
            )
        if reading.unknown:
            said.append(f"the table's model does not know {reading.unknown} of the {reading.words} parts of the query {shown!r}")
        elif reading.spelled:
            said.append(f"the table's model reads the query {shown!r} in pieces of characters: it has hardly seen such a script")
        if reading.cut:
            said.append(f"the query {shown!r} is longer than the table's model reads: its end is left out")
    return said


def complain(said: Sequence[str]) -> None:
    for sentence in said:
        logger.warning("%s", sentence)


def vectors_of(queries: Sequence[Any], towers: QueryTowers, max_pixels: int) -> np.ndarray:
    """float32 [N, d], unit norm, of texts and pictures in one order. UserError for one that is neither, or gets no embedding."""
    from assets.metrics.norms import unit_norm
    from assets.search_table.query_pictures import read_picture

    texts = {row: query for row, query in enumerate(queries) if isinstance(query, str)}
    if not all(text.strip() for text in texts.values()):
        raise UserError("the query is empty. Give some words, or a picture as pathlib.Path, bytes or PIL.Image.")
    pictures = {row: read_picture(query, max_pixels) for row, query in enumerate(queries) if row not in texts}
    vectors = np.empty((len(queries), towers.dimension), np.float32)
    if texts:
        complain(check_readable(list(texts.values()), towers))
        vectors[list(texts)] = towers.texts(list(texts.values()))
    if pictures:
        vectors[list(pictures)] = towers.pictures(list(pictures.values()))
    if not unit_norm(vectors).all():
        raise UserError("the table's model gives this query no embedding: it answers zeros, or overflows. Try another query.")
    return vectors
