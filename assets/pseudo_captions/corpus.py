"""The caption corpus: where captions come from, and when two of them are the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.errors import UserError


def normalised(caption: str) -> str:
    """What two spellings of one caption have in common: NFKC, case folded, white space single."""
    return " ".join(unicodedata.normalize("NFKC", caption).casefold().split())


def distinct_captions(captions: Iterable[str]) -> list[str]:
    """The first spelling of every caption that is not empty, in the order given."""
    first: dict[str, str] = {}
    for caption in captions:
        if key := normalised(caption):
            first.setdefault(key, caption.strip())
    return list(first.values())


def read_corpus(files: list[str]) -> list[str]:
    """Captions of .txt files (one per line) and .parquet files (column `caption`), in the order given."""
    captions: list[str] = []
    for name in files:
        path = Path(name)
        if not path.is_file():
            raise UserError(f"pseudo_captions.extra_corpora: {name} is not a file in {Path.cwd()}.")
        if path.suffix == ".txt":
            try:
                captions += path.read_text(encoding="utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise UserError(f"pseudo_captions.extra_corpora: {name} is not UTF-8 ({error}). Save it as UTF-8.") from None
        elif path.suffix == ".parquet":
            captions += _read_column(path)
        else:
            raise UserError(f"pseudo_captions.extra_corpora: {name} is neither .txt (one caption per line) nor .parquet (column caption).")
    return captions


def _read_column(path: Path) -> list[str]:
    try:
        if "caption" not in (names := pq.read_schema(path).names):
            raise UserError(f"pseudo_captions.extra_corpora: {path} has no column 'caption', only {', '.join(names)}.")
        column = pq.read_table(path, columns=["caption"])["caption"]
    except pa.ArrowException as error:
        raise UserError(f"pseudo_captions.extra_corpora: {path} is not a readable Parquet file: {error}.") from None
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise UserError(f"pseudo_captions.extra_corpora: column caption of {path} is of type {column.type}; it must be string.")
    return [caption for caption in column.to_pylist() if caption]
