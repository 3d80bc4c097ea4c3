"""python -m assets.commands.plan: what `make demo` will do with these pictures, in how much time and memory, and what it cannot measure.

It reads names and captions, not pictures: what decodes, and what is there twice, curated_images finds out. It times a few real steps.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from assets import artifacts
from assets.commands.trial import Trial, inspected_per_second, trial
from assets.curated_images.split import split_images
from assets.errors import UserError
from assets.limits import Sides, limits, sides
from assets.params import DemoClip, Params, read_params
from assets.pictures.table import read_batches, read_rows
from assets.recipes import BASE
from assets.source_images.listed import named
from assets.source_images.root import holds_pictures, recorded
from assets.source_images.stage import LISTED
from assets.stages import addresses
from assets.training.length import Length, length

SAMPLED = 24  # pictures whose decoding is timed
CLASSES_SHOWN = 3
WIDTH = 12  # of the first column


@dataclass(frozen=True)
class Listing:
    """What is known of the pictures without opening them. `sample` are some files' bytes."""

    where: str
    ids: list[str]
    labels: list[str | None]
    families: list[str | None]  # of every labelled picture
    given: list[str | None]  # splits that the source gives
    captioned: int
    captions: int  # distinct
    sample: list[bytes]


@dataclass(frozen=True)
class Split:
    """What curated_images will make of them, if it rejects nothing more."""

    pictures: Counter[str]  # by split
    sides: Sides
    small: list[str]  # classes with too few pictures, which are rejected


def listing(params: Params, written: dict[str, Any]) -> Listing | None:
    """None where the pictures are still to be fetched."""
    sources = params.source_images.sources
    if all(source.kind in LISTED and holds_pictures(source) for source in sources):
        rows, sample = [], []
        for source in sources:
            listed = LISTED[source.kind](source)
            rows += [named(row, source) for row in listed.rows]
            sample += [picture for picture in listed.read(_some(source, len(listed.rows))) if picture]
        return _listing(", ".join(source.root for source in sources), rows, sample)
    if not artifacts.SOURCE_IMAGES.is_dir() or not recorded(written):
        return None
    rows = read_rows(artifacts.SOURCE_IMAGES, columns=["id", "label", "family", "given_split", "captions"]).to_pylist()
    first = next(read_batches(artifacts.SOURCE_IMAGES, ["image"], SAMPLED))
    return _listing(f"{artifacts.SOURCE_IMAGES}, read earlier", rows, first["image"].to_pylist())


def _some(source: Any, pictures: int) -> range:
    """Positions of a few pictures: of a folder spread over all, else the first, since some kinds are read from their start on."""
    return range(0, pictures, max(1, pictures // SAMPLED) if source.kind == "image_folder" else 1)[:SAMPLED]


def _listing(where: str, rows: list[dict[str, Any]], sample: list[bytes]) -> Listing:
    distinct = len({caption for row in rows for caption in row["captions"]})
    captioned = sum(bool(row["captions"]) for row in rows)
    ids, labels, given = ([row[name] for row in rows] for name in ("id", "label", "given_split"))
    families = [row["family"] or row["label"] for row in rows]
    return Listing(where, ids, labels, families, given, captioned, distinct, sample)


def split_of(found: Listing, params: Params) -> Split:
    """As curated_images splits them, if it rejects nothing more. UserError where it would fail."""
    settings = params.curated_images
    count = Counter(label for label in found.labels if label is not None)
    small = sorted(label for label, number in count.items() if number < settings.min_images_per_class)
    rows = [row for row in zip(found.ids, found.labels, found.families, found.given, strict=True) if row[1] not in small]
    labels, families, given = ([row[column] for row in rows] for column in (1, 2, 3))
    try:
        splits = split_images(
            [row[0] for row in rows],
            labels,
            families,
            given,
            seed=settings.seed,
            test_fraction=settings.test_fraction,
            validation_classes=settings.validation_classes,
            validation_pictures=settings.validation_pictures,
        )
    except UserError as error:
        raise UserError(f"{found.where}: {error} {_small(small, settings.min_images_per_class)}".strip()) from None
    return Split(Counter(splits), sides(splits, labels, families, captions=found.captions > 0), small)


def lengths(params: Params, pictures: int) -> dict[str, Length]:
    """By recipe, base first where it is trained here."""
    found = {BASE: length(params.base_clip, pictures)} if isinstance(params.base_clip, DemoClip) else {}
    return found | {name: length(recipe.settings, pictures) for name, recipe in params.recipe.items() if recipe.settings is not None}


def seconds(params: Params, found: Listing, split: Split, trained: dict[str, Length], speed: Trial, decoded: float) -> dict[str, float]:
    """By part of the pipeline, counted from nothing made; the parts of a training are its steps, validations and what it embeds first."""
    train, validation, test = (split.pictures[name] for name in ("train", "validation", "test"))
    total = sum(split.pictures.values())
    texts = found.captions + len(split.sides.classes["train"])
    parts = {"reading": 2 * total / decoded, BASE: 0.0, "captions": train / speed.images_per_second + texts / speed.texts_per_second}
    parts |= {"image towers": 0.0, "text towers": 0.0}
    for name, run in trained.items():
        step = speed.steps[name]
        validated = 1 + -(-run.epochs // run.epochs_per_round) + _way_back(params, name)  # the start, each round, the way back
        took = validated * validation / speed.images_per_second + run.steps * (step or 0.0)
        if name == BASE:
            parts[BASE] += took + texts / speed.texts_per_second
        elif params.recipe[name].stage == "image_tower":
            parts["image towers"] += took + (train + validation) / speed.images_per_second
        else:  # its pictures are embedded once; validations embed texts alone
            parts["text towers"] += run.steps * (step or 0.0) + train * params.recipe[name].settings.views / speed.images_per_second
    prompts = len(params.evaluation.prompts) * len(split.sides.classes["test"])
    parts["evaluation"] = len(params.recipes.measured) * (test / speed.images_per_second + prompts / speed.texts_per_second)
    parts["table"] = total / speed.images_per_second
    parts["starting"] = speed.start_seconds * len(addresses(params))
    return parts


def _way_back(params: Params, name: str) -> int:
    """How many models on it are validated."""
    return 0 if name == BASE else len(params.recipe[name].settings.way_back)


def not_measurable(params: Params, split: Split) -> Iterator[str]:
    yield from limits(split.sides, level=params.evaluation.confidence)
    held_out = split.pictures["validation"]
    if held_out < (least := params.image_tower.min_validation_pictures):
        yield (
            f"what training gains: {held_out or 'no'} validation pictures, and fewer than {least} choose nothing, so every recipe stays"
            " as base is. Give classes more pictures, or raise curated_images.validation_pictures"
        )
    if split.small:
        yield _small(split.small, params.curated_images.min_images_per_class)
    if split.pictures["test"] <= params.evaluation.knn_k:
        votes = params.evaluation.knn_k
        yield f"k-NN as it is meant: {split.pictures['test']} test pictures, where {votes} neighbours vote (evaluation.knn_k)"


def _small(classes: list[str], least: int) -> str:
    if not classes:
        return ""
    shown = ", ".join(classes[:CLASSES_SHOWN]) + (", …" if len(classes) > CLASSES_SHOWN else "")
    return f"classes with fewer than {least} pictures, which are rejected: {len(classes)} ({shown})"


def lines(params: Params, written: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, in words), one thing a line."""
    found = listing(params, written)
    if found is None:
        speed = trial(params, {})
        yield "pictures", "not here yet: source_images fetches and draws the demo's emoji first (some minutes of network and drawing)"
        yield "more", "`make plan` says the rest once they are there; README.md and data/record show the recorded run of the demo"
        if speed is not None and speed.steps.get(BASE) is not None:
            yield "steps", f"{speed.steps[BASE]:.2f} s each for the base, by a short trial of this machine ({speed.device})"
        return
    split = split_of(found, params)
    labelled = sum(label is not None for label in found.labels)
    yield (
        "pictures",
        f"{len(found.ids):,} in {found.where}: {labelled:,} with a label, {len(found.ids) - labelled:,} without (searched only)",
    )
    yield "captions", f"{found.captioned:,} pictures have some, {found.captions:,} distinct" if found.captions else "none"
    yield "split", ", ".join(_side(split, name) for name in ("train", "validation", "test")) + ", if nothing is rejected"
    trained = lengths(params, split.pictures["train"])
    yield "training", "; ".join(f"{name} {run.steps:,} steps of {run.batch_size}" for name, run in trained.items())
    speed = trial(params, {name: run.batch_size for name, run in trained.items()})
    if speed is None:
        yield "time", "unknown until the base is there (models/base): `dvc repro base_clip`, then `make plan` again"
    else:
        decoded = inspected_per_second(found.sample, int(params.curated_images.max_megapixels * 1e6), params.curated_images.min_side)
        parts = seconds(params, found, split, trained, speed, decoded)
        each = ", ".join(f"{name} {_time(took)}" for name, took in parts.items() if took)
        total = _time(sum(parts.values()))
        yield "time", f"about {total} from the start on this machine ({speed.device}), by a short trial: {each}"
        if speed.disturbed:
            yield "", "other work took processors from the trial, so it may be less; `make plan` tries again"
        free = psutil.virtual_memory().available / 1e9
        told = f"about {speed.gigabytes:.1f} GB at most"
        if speed.device == "cpu":
            told += f"; {free:.1f} GB are free"
            told += ". Reduce batch_size, or set gradient_checkpointing" if speed.gigabytes > free else ""
        yield "memory", told
    for number, reason in enumerate(not_measurable(params, split)):
        yield "" if number else "cannot tell", reason


def _side(split: Split, name: str) -> str:
    classes, families = len(split.sides.classes[name]), len(split.sides.families[name])
    together = f" in {families:,} families" if families != classes else ""
    return f"{split.pictures[name]:,} pictures of {classes:,} classes{together} for {name}"


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"


def main() -> int:
    try:
        params, written = read_params()
        print("The plan")
        for name, text in lines(params, written):
            print(f"  {name:<{WIDTH}}{text}", flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    logging.getLogger("assets").setLevel(logging.ERROR)  # the split's warnings are lines of the plan
    sys.exit(main())
