"""Image→image benchmarks whose pictures have a class: GPR1200, INSTRE, CUB-200-2011 and Stanford Online Products.

In all of them every test picture is a query against all test pictures, and a picture of the same class is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Pictures, in_class_folders, is_picture, listed, required, subfolders, unpacked
from assets.evaluation.benchmarks.recall import percent, recalls
from assets.evaluation.benchmarks.tools import Tools
from assets.metrics.ranking import relevant_ranks
from assets.metrics.retrieval import average_precision, average_precisions
from assets.metrics.similarity import exclude_self

INSTRE_SUBSETS = ("INSTRE-S1", "INSTRE-S2", "INSTRE-M")
CUB_TEST_CLASSES = range(101, 201)


class Classified(NamedTuple):
    pictures: Pictures
    classes: np.ndarray  # int64 [N]


def read_gpr1200(root: Path) -> Classified:
    """`images/<category>_<name>.jpg`, sorted by category and name."""
    folder = required(root / "images")
    names = [file.name for file in folder.iterdir() if is_picture(file)]
    if not names:
        raise UserError(f"{folder} holds no picture <category>_<name>.jpg.")
    if odd := sorted(name for name in names if not name.partition("_")[0].isdecimal()):
        raise UserError(f"{folder / odd[0]} is not named <category>_<name>.jpg, with a number for the category.")
    names.sort(key=lambda name: (int(name.partition("_")[0]), name))
    return Classified(Pictures(folder, names), np.array([int(name.partition("_")[0]) for name in names], np.int64))


def read_instre(root: Path) -> Classified:
    """`INSTRE-S1/<class>/`, `INSTRE-S2/<class>/`, `INSTRE-M/<class>/`: a class is a folder of one subset."""
    for subset in INSTRE_SUBSETS:
        required(root / subset)
    return Classified(*in_class_folders(root, [f"{subset}/{name}" for subset in INSTRE_SUBSETS for name in subfolders(root / subset)]))


def read_cub200(root: Path) -> Classified:
    """The classes 101–200 of images.txt and image_class_labels.txt, in the order of the image numbers."""
    root = unpacked(root, "CUB_200_2011", "images.txt")
    files = _numbered(root / "images.txt")
    labels = {image: int(label) for image, label in _numbered(root / "image_class_labels.txt").items() if label.isdecimal()}
    if unlabelled := files.keys() - labels.keys():
        raise UserError(f"{root / 'image_class_labels.txt'} has no class for image {min(unlabelled, key=int)} of images.txt.")
    test = sorted((image for image in files if labels[image] in CUB_TEST_CLASSES), key=int)
    pictures = listed(root / "images", [files[image] for image in test])
    return Classified(pictures, np.array([labels[image] for image in test], np.int64))


def read_sop(root: Path) -> Classified:
    """The rows of Ebay_test.txt (image_id, class_id, super_class_id, path) in its order."""
    root = unpacked(root, "Stanford_Online_Products", "Ebay_test.txt")
    lines = required(root / "Ebay_test.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines[1:] if line.strip()]
    if lines[:1] != ["image_id class_id super_class_id path"] or any(len(row) != 4 or not row[1].isdecimal() for row in rows):
        raise UserError(f"{root / 'Ebay_test.txt'} does not have the columns image_id class_id super_class_id path.")
    return Classified(listed(root, [row[3] for row in rows]), np.array([int(row[1]) for row in rows], np.int64))


def measure_map(data: Classified, tools: Tools) -> dict[str, float]:
    """GPR1200 and INSTRE: every picture is a query, all pictures of its class are relevant; full mean average precision.

    `map_with_query` leaves the query itself in the gallery, where it ranks first, as the protocol of GPR1200 does (arXiv 2111.13122,
    §3; eval/ of Visual-Computing/GPR1200) and as arXiv 2409.01936 measures INSTRE: the number to compare with the paper's. `map` and
    `recall_at_1` take the query out by index, as everywhere else in this project.
    """
    embeddings = tools.encoder.images(data.pictures)
    ranks = _ranks_without_query(embeddings, data.classes)
    with_query = average_precisions(embeddings, embeddings, lambda start, stop: data.classes[start:stop, None] == data.classes)
    alone = {"map": percent(np.array([average_precision(own) for own in ranks]))}
    return {"map_with_query": percent(with_query)} | alone | recalls(ranks, (1,))


def measure_cub200(data: Classified, tools: Tools) -> dict[str, float]:
    """CUB-200-2011 as in metric learning (Song et al. 2016, arXiv 1511.06452, §6): the second half of the classes, R@1, 2, 4, 8.

    Every picture is a query, itself excluded by index. arXiv 2409.01936 reports R@1.
    """
    return recalls(_ranks_without_query(tools.encoder.images(data.pictures), data.classes), (1, 2, 4, 8))


def measure_sop(data: Classified, tools: Tools) -> dict[str, float]:
    """Stanford Online Products (Song et al. 2016, arXiv 1511.06452, §6): the test products, R@1, 10, 100, 1000; the query excluded."""
    return recalls(_ranks_without_query(tools.encoder.images(data.pictures), data.classes), (1, 10, 100, 1000))


def _ranks_without_query(embeddings: np.ndarray, classes: np.ndarray) -> list[np.ndarray]:
    return list(
        relevant_ranks(embeddings, embeddings, lambda start, stop: classes[start:stop, None] == classes, exclude_self(len(embeddings)))
    )


def _numbered(path: Path) -> dict[str, str]:
    """A file of lines `<number> <rest>`."""
    lines = [line.split(maxsplit=1) for line in required(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if odd := [line for line in lines if len(line) != 2 or not line[0].isdecimal()]:
        raise UserError(f"{path} has a line that is not a number and a word: {' '.join(odd[0])!r}.")
    return {number: rest.strip() for number, rest in lines}
