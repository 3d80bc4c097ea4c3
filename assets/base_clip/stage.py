"""Stage base_clip: reads the training split of curated_images, writes models/base. Of the other splits it checks the words alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import open_clip

from assets import artifacts
from assets.base_clip.demo import make_demo_clip
from assets.base_clip.pretrained import make_pretrained_clip
from assets.clip.device import device_of
from assets.clip.readable import ANOTHER_BASE, in_words, readability
from assets.engine import HERE, Engine
from assets.params import BaseClip, DemoClip, Training
from assets.pictures.table import read_rows
from assets.recipes import BASE
from assets.training.processes import run_in_processes

logger = logging.getLogger(__name__)

FEW = 0.01  # of the captions: a symbol here and there that cannot be read is worth no warning


def make_base_clip(settings: BaseClip, training: Training, engine: Engine = HERE) -> None:
    """`training.processes` has no effect here: the base is aligned in one process."""
    target = artifacts.model_dir(BASE)
    if isinstance(settings, DemoClip):
        given = settings, training, artifacts.CURATED_IMAGES, target
        if engine.remote:
            run_in_processes(1, device_of(engine, settings.device), make_demo_clip, *given, engine=engine)
        else:
            make_demo_clip(*given)
    else:
        make_pretrained_clip(settings, target)
    note_readability(target, artifacts.CURATED_IMAGES)


def note_readability(directory: Path, curated: Path) -> None:
    """Write into the base's model card which class names and captions of all splits its tokenizer can read; warn of those it cannot.

    Every model made from the base has the same tokenizer.
    """
    tokenizer = open_clip.get_tokenizer(f"local-dir:{directory.resolve()}")
    rows = read_rows(curated, columns=["label", "class_name", "captions"]).to_pylist()
    found: list[dict[str, Any]] = []
    for what, texts, few in (
        ("class names", [row["class_name"] for row in rows if row["label"] is not None], 0.0),
        ("captions", [caption for row in rows for caption in row["captions"]], FEW),
    ):
        of_kind = readability(tokenizer, texts)
        found.append({"what": what, **of_kind, "said": in_words(what, of_kind)})
        for sentence in found[-1]["said"]:
            logger.log(logging.WARNING if of_kind["worst"] > few else logging.INFO, "%s", sentence)
        if of_kind["lost"] > few:
            logger.warning("%s", ANOTHER_BASE)
    card = directory / artifacts.MODEL_CARD
    artifacts.write_json(card, artifacts.read_json(card) | {"readable": found})
