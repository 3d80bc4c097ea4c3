"""Revisited Oxford and Paris (Radenović et al., CVPR 2018, arXiv 1803.11285): landmark queries in three difficulties, with junk.

Shapes: Q queries, G pictures of the database.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Boxes, Pictures, listed, required
from assets.evaluation.benchmarks.tools import Tools
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import precision_at_k, trapezoidal_average_precision

# difficulty: (what is right, what is taken out of the ranking); unlabelled pictures are wrong
DIFFICULTIES = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}
PRECISION_AT = (1, 5, 10)
UNCROPPED = "_uncropped"


class Revisited(NamedTuple):
    pictures: Pictures  # the database
    queries: Pictures  # cropped to their boxes
    whole_queries: Pictures  # the same pictures, uncropped
    judged: list[dict[str, np.ndarray]]  # of each query: the rows of the database that are easy, hard and junk


def read_revisited(root: Path) -> Revisited:
    """`gnd_<name>.pkl` (imlist, qimlist, gnd with each query's bbx, easy, hard, junk) and `jpg/<image>.jpg`; <name> is the folder's."""
    path = required(root / f"gnd_{root.name}.pkl")
    ground_truth = read_plain_pickle(path)
    try:
        database = [f"{name}.jpg" for name in ground_truth["imlist"]]
        queries = [f"{name}.jpg" for name in ground_truth["qimlist"]]
        gnd = ground_truth["gnd"]
        boxes = tuple(_box(each["bbx"]) for each in gnd)
        judged = [{kind: np.array(each[kind], np.int64).reshape(-1) for kind in ("easy", "hard", "junk")} for each in gnd]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not the revisited annotation: {type(error).__name__} {error}.") from None
    if len(queries) != len(gnd):
        raise UserError(f"{path} has {len(queries)} queries and {len(gnd)} judgements; each query needs one.")
    if any(len(rows) and not (rows.min() >= 0 and rows.max() < len(database)) for each in judged for rows in each.values()):
        raise UserError(f"{path} judges pictures beyond its list of {len(database)}.")
    pictures = root / "jpg"
    return Revisited(listed(pictures, database), listed(pictures, queries, Boxes(boxes)), listed(pictures, queries), judged)


def measure_revisited(data: Revisited, tools: Tools) -> dict[str, float]:
    """mAP and mP@1, 5, 10 of each difficulty, percent, as compute_map of the authors' code (filipradenovic/revisitop) has them.

    The query pictures are not in the database. The official protocol crops each to its box: `map_medium` and so on. Uncropped queries show
    what surrounds the building too; their measures are other numbers and have other names, `map_medium_uncropped` and so on.
    Easy: easy pictures are right, hard ones and junk are taken out of the ranking; Medium: easy and hard are right, junk is taken out;
    Hard: hard ones are right, easy ones and junk are taken out. AP is trapezoidal, P@k looks no further than the last right picture.
    Queries with nothing right are skipped, and a difficulty without any is left out. The public code of arXiv 2409.01936
    (Visual-Computing/MCIP) leaves queries uncropped and reports Medium and Hard; Table 1 has one number, which Medium's mAP fits.
    """
    gallery = tools.encoder.images(data.pictures)
    measures: dict[str, float] = {}
    for suffix, pictures in (("", data.queries), (UNCROPPED, data.whole_queries)):
        queries = tools.encoder.images(pictures)
        for difficulty, (right, out) in DIFFICULTIES.items():
            relevant, junk = (_rows(data.judged, kinds, len(gallery)) for kinds in (right, out))
            ranks = [own for own in relevant_ranks(queries, gallery, relevant, junk) if len(own)]
            if not ranks:
                continue
            measures[f"map_{difficulty}{suffix}"] = _percent([trapezoidal_average_precision(own) for own in ranks])
            for k in PRECISION_AT:
                measures[f"precision_at_{k}_{difficulty}{suffix}"] = _percent([precision_at_k(own, k) for own in ranks])
    return measures


def _box(sides: Iterable[Any]) -> tuple[float, float, float, float]:
    numbers = tuple(float(side) for side in sides)
    if len(numbers) != 4:
        raise ValueError(f"a box of four numbers is needed, given {len(numbers)}")
    return numbers


def _rows(judged: list[dict[str, np.ndarray]], kinds: Sequence[str], count: int) -> Callable[[int, int], np.ndarray]:
    def block(start: int, stop: int) -> np.ndarray:
        mask = np.zeros((stop - start, count), bool)
        for offset, own in enumerate(judged[start:stop]):
            for kind in kinds:
                mask[offset, own[kind]] = True
        return mask

    return block


def _percent(values: list[float]) -> float:
    return round(100 * float(np.mean(values)), 4)


def read_plain_pickle(path: Path) -> Any:
    """A pickle of containers, numbers, texts and numpy arrays. Anything else in it, which might run code, is refused unrun."""
    try:
        with path.open("rb") as stream:
            return _Plain(stream, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except Exception as error:  # a damaged pickle raises whatever it leads to
        raise UserError(f"{path} cannot be read as a pickle: {type(error).__name__} {error}.") from None


class _Plain(pickle.Unpickler):
    """Knows how numpy arrays are rebuilt and nothing else that has a name."""

    def find_class(self, module: str, name: str) -> Any:
        known = PLAIN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise UserError(f"is not plain data: it asks for {module}.{name}. Use the file of the official source.")
        return known


def _empty_array(kind: type, shape: object, dtype: object) -> np.ndarray:
    # what the pickle says of size and type follows in the array's state, where numpy checks it against the bytes
    return np.empty(0, np.uint8)


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _bytes_of(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _number(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0]


PLAIN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _bytes_of,  # how the oldest protocols write bytes
    ("__builtin__", "bytes"): _no_bytes,
}
