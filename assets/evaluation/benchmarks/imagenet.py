"""ImageNet and its variants, and ObjectNet: k-NN and zero-shot classification.

Class names and prompts are open_clip's, lists of wnids timm's: the ones that published numbers of CLIP models were made with.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

from assets.errors import UserError
from assets.evaluation.benchmarks.pictures import Border, Pictures, in_class_folders, required, subfolders, unpacked
from assets.evaluation.benchmarks.recall import percent
from assets.evaluation.benchmarks.tools import Encodes, Tools
from assets.metrics.knn import knn_predictions
from assets.metrics.similarity import exclude_self
from assets.metrics.zero_shot import prompt_ensemble, zero_shot_predictions

OBJECTNET_BORDER = 2  # pixels, red


class Labelled(NamedTuple):
    pictures: Pictures
    classes: np.ndarray  # int64 [N], of ImageNet's 1000 in the order of the wnids
    candidates: np.ndarray  # int64 [C], the classes that zero-shot chooses among


class Named(NamedTuple):
    pictures: Pictures
    classes: np.ndarray  # int64 [N]
    names: list[str]  # [C]


def wnids(subset: str) -> list[str]:
    """The classes of "imagenet" (1000), "imagenet_a" or "imagenet_r" (200 of them), sorted, which is their order in open_clip."""
    # timm ships the lists; importing it is slow, reading its files is not
    import timm.data

    return (files(timm.data) / "_info" / f"{subset}_synsets.txt").read_text(encoding="utf-8").split()


def read_imagenet_val(root: Path) -> Labelled:
    """`<wnid>/*.JPEG`, as the usual script sorts the validation images."""
    return _read_wnids(root, "val", "imagenet")


def read_imagenet_train(root: Path) -> Labelled:
    """`<wnid>/*.JPEG`, the training archive with its inner archives unpacked."""
    return _read_wnids(root, "train", "imagenet")


def read_imagenet_sketch(root: Path) -> Labelled:
    """`<wnid>/*.JPEG`."""
    return _read_wnids(root, "sketch", "imagenet")


def read_imagenet_a(root: Path) -> Labelled:
    """`<wnid>/*.jpg` of 200 classes."""
    return _read_wnids(root, "imagenet-a", "imagenet_a")


def read_imagenet_r(root: Path) -> Labelled:
    """`<wnid>/*.jpg` of 200 classes, other ones than -A's."""
    return _read_wnids(root, "imagenet-r", "imagenet_r")


def read_imagenet_v2(root: Path) -> Labelled:
    """`<0…999>/*.jpeg`, folders named by the class's number in the order of the wnids; the matched-frequency set."""
    folder = unpacked(root, "imagenetv2-matched-frequency-format-val", "0")
    numbers = sorted(int(name) for name in subfolders(folder) if name.isdecimal() and int(name) < 1000)
    if not numbers:
        raise UserError(f"{folder / '0'} is missing.")
    pictures, order = in_class_folders(folder, [str(number) for number in numbers])
    return Labelled(pictures, np.array(numbers, np.int64)[order], np.arange(1000))


def read_objectnet(root: Path) -> Named:
    """`images/<folder>/*.png` of the classes that ObjectNet shares with ImageNet, by the mappings that come with it."""
    root = unpacked(root, "objectnet-1.0", "mappings")
    label_of = _read_mapping(root / "mappings" / "folder_to_objectnet_label.json")
    shared = _read_mapping(root / "mappings" / "objectnet_to_imagenet_1k.json")
    folders = sorted(folder for folder, label in label_of.items() if label in shared)
    if lost := sorted(shared.keys() - {label_of[folder] for folder in folders}):
        raise UserError(f"{root / 'mappings' / 'folder_to_objectnet_label.json'} has no folder for {lost[0]!r}.")
    pictures, classes = in_class_folders(root / "images", folders, Border(OBJECTNET_BORDER))
    return Named(pictures, classes, [label_of[folder].lower() for folder in folders])


def measure_imagenet(data: Labelled, tools: Tools) -> dict[str, float]:
    """ImageNet val, -V2, -Sketch, -A and -R: accuracy (top-1) of zero-shot and k-NN classification, percent.

    `zero_shot`: the most similar of the class embeddings, each open_clip's class name in OpenAI's 80 prompts, normalise → mean →
    normalise (arXiv 2103.00020, §3.1.4); -A and -R choose among their own 200 classes, the others among all 1000 (as in their papers,
    arXiv 1907.07174 and 2006.16241, and LAION-AI/CLIP_benchmark).
    `knn`: the vote among the nearest of ImageNet's training images, of all 1000 classes, for each of the sets (the public code of arXiv
    2409.01936: k 21, weights exp(cosine / 0.1)); left out where imagenet_train is not there. `knn_leave_one_out`: the same vote among
    the other pictures of the set itself, which needs no training images; the paper has no such column.
    """
    embeddings = tools.encoder.images(data.pictures)
    chosen = data.candidates[zero_shot_predictions(embeddings, tools.imagenet_classes()[data.candidates])]
    measures = {"zero_shot": percent(chosen == data.classes)}
    vote = functools.partial(knn_predictions, embeddings, k=tools.knn_k, temperature=tools.knn_temperature)
    if tools.imagenet_train is not None:
        gallery, labels = tools.imagenet_train()
        measures["knn"] = percent(vote(gallery, labels) == data.classes)
    among_others = vote(embeddings, data.classes, exclude=exclude_self(len(embeddings)))
    return measures | {"knn_leave_one_out": percent(among_others == data.classes)}


def measure_objectnet(data: Named, tools: Tools) -> dict[str, float]:
    """ObjectNet (Barbu et al., NeurIPS 2019): zero-shot accuracy (top-1) among the 113 classes it shares with ImageNet, percent.

    The red border of two pixels is cut off, as its makers ask. Names are ObjectNet's own in small letters, in OpenAI's 80 prompts, as in
    LAION-AI/CLIP_benchmark, with which open_clip publishes 71.8 for the base model of arXiv 2409.01936; the paper has 72.0.
    """
    chosen = zero_shot_predictions(tools.encoder.images(data.pictures), class_embeddings(data.names, tools.encoder))
    return {"zero_shot": percent(chosen == data.classes)}


def imagenet_class_embeddings(encoder: Encodes) -> np.ndarray:
    """[1000, d], in the order of the wnids."""
    from open_clip import IMAGENET_CLASSNAMES

    return class_embeddings(IMAGENET_CLASSNAMES, encoder)


def class_embeddings(names: Sequence[str], encoder: Encodes) -> np.ndarray:
    """[C, d], unit norm: each name in OpenAI's 80 prompts for ImageNet."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    texts = [template(name) for name in names for template in OPENAI_IMAGENET_TEMPLATES]
    return prompt_ensemble(encoder.texts(texts).reshape(len(names), len(OPENAI_IMAGENET_TEMPLATES), -1))


def _read_wnids(root: Path, inner: str, subset: str) -> Labelled:
    known, allowed = wnids("imagenet"), wnids(subset)
    folder = root / inner if (root / inner).is_dir() else root
    found = [name for name in subfolders(folder) if name[:1] == "n" and name[1:].isdecimal()]
    if not found:
        raise UserError(f"{folder / allowed[0]} is missing.")
    if odd := sorted(set(found) - set(allowed)):
        raise UserError(f"{folder / odd[0]} is not one of the set's {len(allowed)} classes.")
    number_of = {wnid: number for number, wnid in enumerate(known)}
    pictures, order = in_class_folders(folder, found)
    classes = np.array([number_of[wnid] for wnid in found], np.int64)[order]
    return Labelled(pictures, classes, np.array([number_of[wnid] for wnid in allowed], np.int64))


def _read_mapping(path: Path) -> dict[str, str]:
    try:
        mapping = json.loads(required(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}.") from None
    if not isinstance(mapping, dict):
        raise UserError(f"{path} is not a JSON object.")
    return mapping
