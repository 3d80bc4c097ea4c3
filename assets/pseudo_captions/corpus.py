"""Captions from elsewhere: the files that a user names. When two captions are the same: assets/pictures/spelling.py."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.errors import UserError


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
