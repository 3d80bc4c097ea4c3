"""Near-duplicates planted in a folder of pictures, precision and recall: `python -m tests.benchmarks.duplicates FOLDER [--sample 2000]`.

FOLDER holds picture files at any depth, or is a picture table (data/source_images/images). Each picture of the sample gets one copy of
one kind. Found pairs that nobody planted count as wrong, although the folder may hold copies of its own: the nearest are listed, and
--sheet writes them side by side. --scale: the time of the search alone, for 20,000 and 200,000 fingerprints. Asserts nothing.
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

THRESHOLDS = (8, 16, 24, 28, 32, 36, 40, 44, 48, 56, 64)
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
MAX_PIXELS = 100_000_000


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
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--sample", type=int, default=2000)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--scale", action="store_true")
    asked = parser.parse_args()
    if asked.scale:
        _scale()
    if asked.folder:
        _measure(asked.folder, asked.sample, asked.sheet)


def _measure(folder: Path, sample: int, sheet: Path | None) -> None:
    named = _pictures(folder, sample)
    kinds = list(itertools.islice(itertools.cycle(PLANTED), len(named)))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(_prints, [data for _, data in named], kinds, chunksize=16))
    prints = np.frombuffer(b"".join([own for own, _ in made] + [copy for _, copy in made]), np.uint8).reshape(-1, VIEWS, BYTES)
    begun = time.perf_counter()
    pairs = near_pairs(prints, prints, max(THRESHOLDS))
    count = len(named)
    print(f"{count:,} pictures with a copy each; search {time.perf_counter() - begun:.1f} s")  # noqa: T201
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
    _show(pairs, between, named, sheet)


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


def _scale() -> None:
    chance = np.random.default_rng(0)
    for count in (20_000, 200_000):
        prints = chance.integers(0, 256, (count, VIEWS, BYTES), dtype=np.uint8)
        copies = chance.permutation(count)[: count // 10].reshape(2, -1)  # one in twenty has a copy that differs in some bits
        flipped = chance.random((copies.shape[1], VIEWS, BYTES, 8)) < 0.08
        prints[copies[1]] = prints[copies[0]] ^ np.packbits(flipped, axis=-1)[..., 0]
        begun = time.perf_counter()
        found = near_pairs(prints, prints, 44)
        print(f"{count:>7,} fingerprints: {time.perf_counter() - begun:.1f} s, {len(found.queries):,} pairs of {copies.shape[1]:,}")  # noqa: T201


if __name__ == "__main__":
    main()
