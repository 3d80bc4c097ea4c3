"""Near-duplicates planted in a folder of pictures, precision and recall: `python -m tests.benchmarks.duplicates FOLDER [--sample 2000]`.

FOLDER holds picture files at any depth, or is a picture table (data/source_images/images); several may be given. Each picture of the sample
gets one copy of one kind. Found pairs that nobody planted count as wrong, although the folder may hold copies of its own: the nearest are
listed, and --sheet writes them side by side. The number of bits is chosen on one half of the pictures and judged on the other, and the
pairs that the search meets are compared with those of every pair compared. --scale: the time of the search alone by the number of
fingerprints. Asserts nothing.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from assets.curated_images.fingerprint import BYTES, VIEWS, fingerprint
from assets.curated_images.near_duplicates import Pairs, near_pairs
from assets.pictures.opening import open_picture
from tests.settings import demo_params

THRESHOLDS = (8, 16, 24, 28, 32, 36, 40, 44, 48, 56, 64)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 100_000_000
ROWS_AT_ONCE = 256


def _part(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def _watermark(picture: Image.Image) -> Image.Image:
    marked, (width, height) = picture.copy(), picture.size
    pen = ImageDraw.Draw(marked, "RGBA")
    pen.rectangle((0.55 * width, 0.85 * height, 0.98 * width, 0.97 * height), fill=(255, 255, 255, 140))
    pen.text((0.58 * width, 0.88 * height), "example.org", fill=(0, 0, 0, 200))
    return marked


PLANTED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda picture: picture,  # each copy is saved as JPEG, this one as quality 40
    "resized to a half": lambda picture: picture.resize((max(8, picture.width // 2), max(8, picture.height // 2))),
    "cropped 5 % at a corner": lambda picture: _part(picture, 0.05, 0.05, 1, 1),
    "cropped 5 % at the sides": lambda picture: _part(picture, 0.025, 0, 0.975, 1),
    "cropped 3 % all around": lambda picture: _part(picture, 0.03, 0.03, 0.97, 0.97),
    "brightness +25 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.25),
    "watermark": _watermark,
    "mirrored": ImageOps.mirror,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--scale", type=int, nargs="*", help="such as 20000 200000")
    asked = parser.parse_args()
    if asked.scale:
        _scale(asked.scale)
    for folder in asked.folders:
        _measure(folder, asked.sample, asked.sheet)


def _measure(folder: Path, sample: int, sheet: Path | None) -> None:
    named = _pictures(folder, sample)
    kinds = list(itertools.islice(itertools.cycle(PLANTED), len(named)))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(_prints, [data for _, data in named], kinds, chunksize=16))
    prints = np.frombuffer(b"".join([own for own, _ in made] + [copy for _, copy in made]), np.uint8).reshape(-1, VIEWS, BYTES)
    begun = time.process_time()
    pairs = near_pairs(prints, prints, max(THRESHOLDS))
    count = len(named)
    print(f"{folder}: {count:,} pictures with a copy each; search {time.process_time() - begun:.1f} s of processors")  # noqa: T201
    planted = pairs.queries - pairs.rows == count
    between = ~planted & (pairs.queries < count)  # of two pictures of the folder; the copies of both only repeat them
    print(f"{'bits':>5} {'precision':>9} {'recall':>6}  " + "  ".join(PLANTED))  # noqa: T201
    for most in THRESHOLDS:
        near = pairs.distances <= most
        right, wrong = int((near & planted).sum()), int((near & between).sum())
        hit = set(pairs.rows[near & planted].tolist())
        recalls = [100 * sum(row in hit for row in range(count) if kinds[row] == kind) / max(1, kinds.count(kind)) for kind in PLANTED]
        row = "  ".join(f"{recall:>{len(kind)}.1f}" for kind, recall in zip(PLANTED, recalls, strict=True))
        print(f"{most:>5} {100 * right / max(1, right + wrong):>9.1f} {100 * right / count:>6.1f}  {row}   ({wrong} not planted)")  # noqa: T201
    _choose(pairs, planted, between, count)
    _compare_with_every_pair(prints, pairs)
    _show(pairs, between, named, sheet)


def _choose(pairs: Pairs, planted: np.ndarray, between: np.ndarray, count: int) -> None:
    """The number of bits of the highest F1 on a half of the pictures, drawn by chance, and what it has on the other half."""
    in_first = np.random.default_rng(1).permutation(count) < count // 2
    halves = []
    for half in (in_first, ~in_first):
        own = half[pairs.rows % count] & half[pairs.queries % count]
        right, wrong = (np.array([(own & kind & (pairs.distances <= most)).sum() for most in THRESHOLDS]) for kind in (planted, between))
        halves.append((right / np.maximum(1, right + wrong), right / half.sum()))
    (precision, recall), (its_precision, its_recall) = halves
    best = int(np.argmax(2 * precision * recall / np.maximum(1e-9, precision + recall)))
    for which, row in (("chosen on one half", best), ("params.yaml", THRESHOLDS.index(demo_params().curated_images.near_duplicate_bits))):
        print(  # noqa: T201
            f"{which}: {THRESHOLDS[row]} bits, precision {precision[row]:.2%}, recall {recall[row]:.1%};"
            f" on the other half: precision {its_precision[row]:.2%}, recall {its_recall[row]:.1%}"
        )


def _compare_with_every_pair(prints: np.ndarray, found: Pairs) -> None:
    """How many of the pairs within each number of bits the search meets; a pair's distance is the least of all views, of either picture."""
    words = np.ascontiguousarray(prints).view(np.uint64)
    drawn = words[:, 0].any(axis=1)
    met = {(query, row) for query, row in zip(found.queries.tolist(), found.rows.tolist(), strict=True)}
    every: list[tuple[int, int, int]] = []
    for start in range(0, len(words), ROWS_AT_ONCE):
        least = np.full((len(words[start : start + ROWS_AT_ONCE]), len(words)), 256, np.uint16)
        for view in range(VIEWS):
            for ours, theirs in ((view, 0), (0, view)):
                distances = np.zeros(least.shape, np.uint16)
                for word in range(words.shape[2]):
                    distances += np.bitwise_count(words[start : start + ROWS_AT_ONCE, None, ours, word] ^ words[None, :, theirs, word])
                seen = words[start : start + ROWS_AT_ONCE, ours].any(axis=1)[:, None] & words[:, theirs].any(axis=1)[None]
                np.minimum(least, np.where(seen, distances, 256), out=least)
        least[~drawn[start : start + ROWS_AT_ONCE]] = 256
        least[:, ~drawn] = 256
        queries, rows = np.nonzero(least <= max(THRESHOLDS))
        later = queries + start > rows
        queries, rows = queries[later], rows[later]
        every += zip((queries + start).tolist(), rows.tolist(), least[queries, rows].tolist(), strict=True)
    for most in THRESHOLDS:
        within = [(query, row) for query, row, distance in every if distance <= most]
        share = sum(pair in met for pair in within) / max(1, len(within))
        print(f"within {most:>2} bits: the search meets {share:.2%} of {len(within):,} pairs")  # noqa: T201


def _show(pairs: Pairs, between: np.ndarray, named: list[tuple[str, bytes]], sheet: Path | None) -> None:
    chosen = np.flatnonzero(between)
    chosen = chosen[np.argsort(pairs.distances[chosen], kind="stable")]
    for pair in chosen[:10]:
        print(f"{pairs.distances[pair]:>4} {named[pairs.rows[pair]][0]}  {named[pairs.queries[pair]][0]}")  # noqa: T201
    if sheet is None:
        return
    shown = [*chosen[:60:2], *chosen[60::40]][:70]
    canvas = Image.new("RGB", (14 * 104, max(1, -(-len(shown) // 7)) * 120), "white")
    for place, pair in enumerate(shown):
        left, top = place % 7 * 208, place // 7 * 120
        for step, row in enumerate((pairs.rows[pair], pairs.queries[pair])):
            small = open_picture(named[row][1], MAX_PIXELS)
            small.thumbnail((96, 96))
            canvas.paste(small, (left + 98 * step, top))
        ImageDraw.Draw(canvas).text((left, top + 98), f"{pairs.distances[pair]} bits", fill="black")
    canvas.save(sheet)


def _pictures(folder: Path, sample: int) -> list[tuple[str, bytes]]:
    chance = np.random.default_rng(0)
    if (folder / "00000.parquet").exists():
        from assets.pictures.table import read_images_of, read_rows

        ids = read_rows(folder, columns=["id"])["id"].to_pylist()
        chosen = [ids[row] for row in chance.permutation(len(ids))[:sample]]
        images = read_images_of(folder, chosen)
        return [(name, images[name]) for name in chosen]
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    return [(str(files[row].relative_to(folder)), files[row].read_bytes()) for row in chance.permutation(len(files))[:sample]]


def _prints(data: bytes, kind: str) -> tuple[bytes, bytes]:
    picture = open_picture(data, MAX_PIXELS)
    saved = io.BytesIO()
    PLANTED[kind](picture).save(saved, "JPEG", quality=40 if kind == "re-encoded" else 85)
    return fingerprint(picture), fingerprint(open_picture(saved.getvalue(), MAX_PIXELS))


def _scale(counts: list[int]) -> None:
    chance = np.random.default_rng(0)
    for count in counts:
        prints = chance.integers(0, 256, (count, VIEWS, BYTES), dtype=np.uint8)
        copies = chance.permutation(count)[: count // 10].reshape(2, -1)  # one in twenty has a copy that differs in some bits
        flipped = chance.random((copies.shape[1], VIEWS, BYTES, 8)) < 0.08
        prints[copies[1]] = prints[copies[0]] ^ np.packbits(flipped, axis=-1)[..., 0]
        begun = time.process_time()
        found = near_pairs(prints, prints, 44)
        seconds = time.process_time() - begun
        print(  # noqa: T201
            f"{count:>7,} fingerprints: {seconds:.1f} s of processors, {1e6 * seconds / count:.0f} µs each;"
            f" {len(found.queries):,} of {copies.shape[1]:,} pairs"
        )


if __name__ == "__main__":
    main()
