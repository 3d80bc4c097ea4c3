"""Search the published table by text or by picture, with the very model that made its vectors.

Opening the table is table.py's, the command line __main__.py's. The first search imports torch.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from assets import artifacts
from assets.errors import UserError
from assets.params import PARAMS_FILE, Params, read_params
from assets.search_table.table import DISTANCE, METADATA, MODELS, VECTOR, has_vector_index, model_name, open_version

if TYPE_CHECKING:
    from lancedb.table import Table

    from assets.clip.encoder import Encoder

logger = logging.getLogger(__name__)

Query = str | Path | bytes | Image.Image
SHOWN = 60  # characters of a query in a message


def search(query: Query, k: int = 10, where: str | None = None) -> pa.Table:
    """The `k` images of the table nearest to `query`, nearest first (fewer where the table or the filter has fewer).

    A str is always text; a pathlib.Path, encoded bytes or a PIL.Image is a picture. `where` is an SQL filter over the table's columns,
    applied before ranking: "split = 'library' and width >= 64". Columns: the table's without `vector`, and `_distance`, the cosine
    distance (0 same direction, 1 unrelated, 2 opposite). Exact, unless the table has a vector index.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise UserError(f"k is {k!r}; it must be a whole number of at least 1.")
    settings = _settings()
    table = open_version()  # a publish in between must not bring vectors of another model
    (vector,) = _embed([query], table, settings)
    ranked: Any = table.search(vector, vector_column_name=VECTOR)
    ranked = ranked.distance_type(DISTANCE).select([*METADATA.names, "_distance"])
    if has_vector_index(table):
        ranked = ranked.refine_factor(settings.search_table.refine_factor)
    if where is not None:
        ranked = ranked.where(where, prefilter=True)
    try:
        return ranked.limit(min(k, table.count_rows())).to_arrow()
    except (ValueError, RuntimeError) as error:
        if where is None:
            raise
        why = re.sub(r",? \S+\.rs:\d+.*", "", str(error).splitlines()[0])  # without the place in lance's source
        columns = ", ".join(f"{field.name} {field.type}" for field in METADATA)
        raise UserError(
            f"the table does not understand the filter {where!r}: {why.rstrip('.')}. A filter is an SQL condition such as"
            f" \"source = 'noto' and width >= 64\" over the columns {columns}."
        ) from error


def embed(queries: Query | Sequence[Query]) -> np.ndarray:
    """float32 [N, d], unit norm: the vectors of N queries, or of one (N = 1), in the space of the table's column `vector`.

    Queries are as in `search`; texts and pictures may stand in one list. Their dot product is their cosine similarity.
    """
    several = queries if isinstance(queries, Sequence) and not isinstance(queries, str | bytes) else [queries]
    return _embed(several, open_version(), _settings())


@dataclass(frozen=True)
class QueryPictures:
    """Pictures of queries, RGB, as an encoder takes them."""

    pictures: Sequence[Image.Image]

    def digests(self) -> list[bytes]:
        """Of the pixels."""
        return [hashlib.sha256(f"{picture.size}\0".encode() + picture.tobytes()).digest() for picture in self.pictures]

    def __len__(self) -> int:
        return len(self.pictures)

    def items(self) -> Sequence[Image.Image]:
        return self.pictures

    def open(self, item: Image.Image) -> Image.Image:
        return item


def _embed(queries: Sequence[Any], table: Table, settings: Params) -> np.ndarray:
    """float32 [N, d]. Queries may be of any kind; UserError for one that is neither text nor a picture."""
    from assets.metrics.norms import unit_norm

    texts = {row: query for row, query in enumerate(queries) if isinstance(query, str)}
    if not all(text.strip() for text in texts.values()):
        raise UserError("the query is empty. Give some words, or a picture as pathlib.Path, bytes or PIL.Image.")
    max_pixels = int(settings.curated_images.max_megapixels * 1e6)
    pictures = {row: _picture(query, max_pixels) for row, query in enumerate(queries) if row not in texts}
    encoder = _encoder_of(table, settings)
    vectors = np.empty((len(queries), encoder.dimension), np.float32)
    if texts:
        _check_readable(list(texts.values()), encoder)
        vectors[list(texts)] = encoder.texts_now(list(texts.values()))
    if pictures:
        vectors[list(pictures)] = encoder.images_now(QueryPictures(list(pictures.values())))
    if not unit_norm(vectors).all():
        raise UserError("the table's model gives this query no embedding: it answers zeros, or overflows. Try another query.")
    return vectors


def _check_readable(texts: list[str], encoder: Encoder) -> None:
    """UserError for a text of which the model's tokenizer knows nothing: all such texts would find the same pictures. Warn of less."""
    from assets.clip.readable import ANOTHER_BASE, read_texts

    for text, reading in zip(texts, read_texts(encoder.tokenizer, texts), strict=True):
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
        if reading.unreadable:
            raise UserError(
                f"the table's model cannot read the query {shown!r}: its tokenizer knows no part of it. Search by a picture. {ANOTHER_BASE}"
            )
        if reading.unknown:
            logger.warning("the table's model does not know %d of the %d parts of the query %r", reading.unknown, reading.words, shown)
        elif reading.spelled:
            logger.warning("the table's model reads the query %r in pieces of characters: it has hardly seen such a script", shown)
        if reading.cut:
            logger.warning("the query %r is longer than the table's model reads: its end is left out", shown)


def _picture(query: Path | bytes | Image.Image, max_pixels: int) -> Image.Image:
    """The query, made upright and RGB by the same rules as the library's pictures."""
    from assets.pictures.apart import opened
    from assets.pictures.decoding import BadPicture

    name = "the picture"
    try:
        if isinstance(query, Path):
            name = str(query)
            data = query.read_bytes()
        elif isinstance(query, bytes):
            data = query
        elif isinstance(query, Image.Image):
            data = _encoded(ImageOps.exif_transpose(query))
        else:
            raise UserError(f"a query is text (str) or a picture (pathlib.Path, bytes, PIL.Image); given {type(query).__name__}.")
        return opened(data, max_pixels)
    except BadPicture as error:
        raise UserError(f"{name} is {error.reason}: {error.detail}. Give a picture that opens, such as a PNG or JPEG file.") from error
    except (OSError, ValueError) as error:  # an absent file; a PIL.Image that is closed or breaks off
        raise UserError(f"{name} cannot be read: {error}. Give the path of a picture file.") from error


def _encoded(image: Image.Image) -> bytes:
    """The same pixels as a file, so that pictures in memory take the way of all others."""
    buffer = io.BytesIO()
    if image.mode[0] in "IF":  # more than 8 bits, whatever the byte order
        image.save(buffer, "TIFF")
    elif image.mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB").save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _settings() -> Params:
    """params.yaml, read again only after it has changed: its parser takes longer than a search."""
    try:
        file = PARAMS_FILE.resolve(strict=True)
    except FileNotFoundError:
        return read_params()[0]  # raises, with what to do
    return _read_settings(file, file.stat().st_size, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_settings(file: Path, size: int, changed_ns: int) -> Params:
    """Size and time of change are there to read the file again when it changes."""
    return read_params(file)[0]


def _encoder_of(table: Table, settings: Params) -> Encoder:
    """The model that made the table's vectors; refuses another one, whose distances would mean nothing."""
    made_by: str = table.search().select(["model"]).limit(1).to_arrow()["model"][0].as_py()
    recipe = made_by.partition("@")[0]
    own = settings.search_table
    found = []
    for place in (MODELS / made_by, artifacts.model_dir(recipe)):  # beside the table, as it was published; else the stage's
        directory = place.resolve()
        files = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(directory.rglob("*")) if file.is_file()]
        now = _sha256(directory, tuple(files)) if files else None
        if now and model_name(recipe, now) == made_by:
            return _encoder(directory, now, own.device, own.precision, own.batch_size)
        found.append(f"{place} is {f'now {model_name(recipe, now)}' if now else 'not there'}")
    raise UserError(
        f"the table was made by {made_by}, but {' and '.join(found)}: vectors of two models cannot be compared. `make versions` lists the"
        " table's versions and their models; `make rollback VERSION=…` goes to one whose model is here, `dvc checkout` brings back the"
        " model of this git revision, and `dvc repro --force --single-item search_table` publishes what is here."
    )


@lru_cache(maxsize=8)
def _sha256(directory: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """`files` (name, size, time of change) is there to hash again when one of them changes."""
    return artifacts.sha256_of(directory)


@lru_cache(maxsize=1)
def _encoder(directory: Path, sha256: str, device: str, precision: str, batch_size: int) -> Encoder:
    from assets.clip.encoder import Encoder

    return Encoder(directory, device=device, precision=precision, batch_size=batch_size)
