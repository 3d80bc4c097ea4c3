"""python -m assets.commands.nearness: what each value of pseudo_captions.min_z means for the base and training images that are there.

A low one lets captions in that do not fit, a high one leaves images without any. How a caption is found: assets/pseudo_captions.
"""

from __future__ import annotations

import sys

import numpy as np

from assets import artifacts
from assets.clip.encoder import Encoder
from assets.errors import UserError
from assets.params import PseudoCaptions, read_params
from assets.pictures.spelling import normalised
from assets.pictures.split import Split
from assets.pictures.table import read_rows
from assets.pseudo_captions.nearness import recovery, unrelated
from assets.pseudo_captions.stage import Candidates, captions_of_images, read_candidates
from assets.recipes import BASE

VALUES = np.arange(2.0, 5.01, 0.25)
CLASSES, DRAWS = (10, 30, 100, 300), 4  # how many classes are drawn at random, and how often
ABOUT = """\
precision, recall, F1: as if nobody had said which captions are an image's own. Of the captions above the limit, the share that are its own;
  of its own ones, the share above the limit; both in one
few: F1 as a share of the best value's, the mean over draws of {classes} classes with their captions alone
held out: the same for validation images of these classes, which the base was not trained on
found: captions that an image finds besides its own. fewer: images, in percent, that find fewer than top_k; none: that find none"""
COLUMNS = ("min_z", "cosine", "precision", "recall", "F1", "few", "held out", "found", "fewer", "none")

Captioned = tuple[np.ndarray, list[list[int]], np.ndarray]  # images [N, d], the numbers of each one's own captions, labels [N]


def main(arguments: list[str]) -> int:
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        settings = read_params()[0].pseudo_captions
        known = read_candidates(settings)
        training, held_out = _captioned(known, settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(ABOUT.format(classes=", ".join(map(str, CLASSES))))
    print("".join(name.rjust(11) for name in COLUMNS))
    everything = _recovery(known, training, training)
    few, few_held_out = (_of_few_classes(known, training, some, settings.seed) for some in (training, held_out))
    for place, value in enumerate(VALUES):
        assigned = captions_of_images(known, settings.model_copy(update={"min_z": float(value)}))
        counts = np.array([len(each) - len(own) for each, own in zip(assigned, known.own, strict=True)])
        found = counts.mean(), 100 * np.mean(counts < settings.top_k), 100 * np.mean(counts == 0)
        numbers = (known.unrelated.limit(value), *everything[place], few[place], few_held_out[place], *found)
        print("".join(field.rjust(11) for field in (f"{value:g}", *(f"{number:.3f}" for number in numbers))))
    return 0


def _captioned(known: Candidates, settings: PseudoCaptions) -> tuple[Captioned, Captioned]:
    """The training images, and those of validation, with what the corpus has of their captions."""
    number = {normalised(caption): row for row, caption in enumerate(known.corpus)}
    encoder = Encoder(artifacts.model_dir(BASE), device=settings.device, precision=settings.precision)
    rows = read_rows(artifacts.CURATED_IMAGES, "validation", ["captions", "label"])
    own = [[number[key] for key in dict.fromkeys(map(normalised, each)) if key in number] for each in rows["captions"].to_pylist()]
    labels = np.array(read_rows(artifacts.CURATED_IMAGES, "train", ["label"])["label"].to_pylist())
    held_out = encoder.images(Split(artifacts.CURATED_IMAGES, "validation"))
    return (known.images, known.own, labels), (held_out, own, np.array(rows["label"].to_pylist()))


def _recovery(known: Candidates, training: Captioned, asked: Captioned) -> np.ndarray:
    """(precision, recall, F1) for each of VALUES, of the images `asked` and the captions of the images `training`."""
    captions = np.unique(np.concatenate([np.array(each, np.int64) for each in training[1]]))
    place = {caption: row for row, caption in enumerate(captions.tolist())}
    of_training, of_asked = ([[place[each] for each in own if each in place] for own in some[1]] for some in (training, asked))
    texts = known.texts[captions]
    apart = unrelated(training[0], texts, of_training)
    found = recovery(asked[0], texts, of_asked, known.findable[captions], [apart.limit(value) for value in VALUES])
    return np.array([(each.precision, each.recall, each.f1) for each in found])


def _of_few_classes(known: Candidates, training: Captioned, asked: Captioned, seed: int) -> np.ndarray:
    """For each of VALUES the mean share of the best value's F1; not a number where there is nothing to draw from."""
    generator, classes, shares = np.random.default_rng(seed), np.unique(training[2]), []
    for count in (each for each in CLASSES if each <= len(classes) for _ in range(DRAWS)):
        few = generator.choice(classes, count, replace=False)
        f1 = _recovery(known, _of(training, few), _of(asked, few))[:, 2]
        if f1.any():
            shares.append(f1 / f1.max())
    return np.mean(shares, axis=0) if shares else np.full(len(VALUES), np.nan)


def _of(some: Captioned, classes: np.ndarray) -> Captioned:
    images, own, labels = some
    rows = np.flatnonzero(np.isin(labels, classes))
    return images[rows], [own[row] for row in rows], labels[rows]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
