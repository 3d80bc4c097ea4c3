"""The stage curated_images: every source image ends in one of two tables, kept or rejected. Each rule is a module of this package.

The stage reads the source once, in order of id, and decodes what no run before it has seen. Images are read a second time when the
split of every image is known.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from assets import artifacts, params
from assets.curated_images import captions, copies
from assets.curated_images.benchmark_pictures import look_at
from assets.curated_images.copies import NOTES_SCHEMA
from assets.curated_images.drop import look, refuse_if_blocked
from assets.curated_images.inspection import Inspector, Usable, inspect_all
from assets.curated_images.near_duplicates import Pairs
from assets.curated_images.nearest import NEAREST_SCHEMA, near_identical, nearest
from assets.curated_images.rejection import REJECTED_SCHEMA, repeated_pictures, too_small_classes
from assets.curated_images.split import split_images
from assets.curated_images.thumbnails import Mirrored, Thumbnails
from assets.engine import HERE, Engine
from assets.errors import UserError
from assets.pictures.decoding import BadPicture
from assets.pictures.families import one_family
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA, SPLITS
from assets.pictures.table import read_batches, read_schema, row_count, writing_batches, writing_rows
from assets.progress import track

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 128  # decoded side by side
BATCHES_PER_FRAME = 64  # as a table of Polars they take less memory
ROWS_WRITTEN_AT_ONCE = 512
MANY_NEAR_TEST = 0.05  # a larger share of the training pictures that leave is worth a warning
WAITING = artifacts.WORK / "curated_images" / "waiting"
ENCODED, THUMBNAILS, FINGERPRINTS = WAITING / "images", WAITING / "thumbnails", WAITING / "fingerprints"
ENCODED_SCHEMA = pa.schema([IMAGES_SCHEMA.field("id"), IMAGES_SCHEMA.field("image")])
WAITING_SCHEMA = pa.schema(
    [
        *(field for field in CURATED_SCHEMA if field.name not in ("image", "split")),
        pa.field("pixels", pa.binary(), nullable=False),
        pa.field("thumbnail", pa.int64(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
        pa.field("encoded", pa.bool_(), nullable=False),
    ]
)
COLUMNS_SCHEMA = pa.schema([field for field in CURATED_SCHEMA if field.name != "image"])
OF_WAITING = [name for name in WAITING_SCHEMA.names if name not in CURATED_SCHEMA.names]


def make_curated_images(settings: params.CuratedImages, benchmarks: Path | None = None, engine: Engine = HERE) -> None:
    """`benchmarks`: the folder of public benchmarks, whose pictures are not to be trained on."""
    try:
        shutil.rmtree(WAITING, ignore_errors=True)  # of a run that was killed
        WAITING.mkdir(parents=True)
        usable, rejected, notes = _inspect_all(settings, engine)
        usable = _with_families(usable)
        read = row_count(artifacts.SOURCE_IMAGES)
        usable = _distinct(usable, rejected)
        ranked, pairs = _near_duplicates(usable, settings)
        if settings.near_duplicates == "drop":
            usable = _without(usable, rejected, list(copies.leaving(ranked, pairs)))
        usable = _without_small_classes(usable, rejected, settings.min_images_per_class)
        rejected.sort(key=lambda row: row["id"])
        usable = _with_splits(usable, rejected, settings)
        usable = _without_near_test(usable, rejected, settings.min_difference_to_test)
        if benchmarks is not None and settings.near_duplicates != "ignore":
            usable = _without_benchmarks(usable, rejected, benchmarks, settings, engine)
        rejected.sort(key=lambda row: row["id"])
        assert usable.height + len(rejected) == read
        logger.info("read %d, rejected %d%s", read, len(rejected), _summary(rejected, examples=0))
        splits = dict(usable["split"].value_counts().iter_rows())
        logger.info("kept %d: %s", usable.height, ", ".join(f"{splits.get(split, 0)} {split}" for split in SPLITS))
        found = look(usable, rejected, _thumbnails, settings.drop)
        refuse_if_blocked(found)
        result = _check(usable, settings.min_side)
        audit = _nearest_table(usable)
        notes = _notes_of(usable, notes, ranked, pairs)
        with (
            artifacts.replacing(artifacts.CURATED_IMAGES) as images,
            artifacts.replacing(artifacts.REJECTED_IMAGES) as rejects,
            artifacts.replacing(artifacts.EXPECTATIONS) as expectations,
            artifacts.replacing(artifacts.DROP) as drop,
            artifacts.replacing(artifacts.NEAREST) as siblings,
            artifacts.replacing(artifacts.NOTES) as noted,
        ):
            _write_kept(images, usable)
            pq.write_table(pa.Table.from_pylist(rejected, schema=REJECTED_SCHEMA), rejects)
            artifacts.write_json(expectations, result)
            artifacts.write_json(drop, found)
            pq.write_table(audit, siblings)
            pq.write_table(pa.Table.from_pylist(notes, schema=NOTES_SCHEMA), noted)
    finally:
        shutil.rmtree(WAITING, ignore_errors=True)


def _how(settings: params.CuratedImages) -> dict[str, Any]:
    """What decides whether a picture is usable."""
    return {
        "max_pixels": int(settings.max_megapixels * 1_000_000),
        "min_side": settings.min_side,
        "max_aspect_ratio": settings.max_aspect_ratio,
        "blank_range": settings.blank_range,
        "fingerprints": settings.near_duplicates != "ignore",
    }


def _inspect_all(settings: params.CuratedImages, engine: Engine) -> tuple[pl.DataFrame, list[dict[str, Any]], list[dict[str, Any]]]:
    """Read the whole source; images that had to be encoded anew wait in ENCODED, the looks of all usable ones in THUMBNAILS and
    FINGERPRINTS. Returns the other columns, the rejected rows, and notes.

    Beside those of the curated table: `pixels`, by which exact duplicates are known, `thumbnail`, the row in THUMBNAILS, `place`, the row
    in the source, and `encoded`, whether the image is in ENCODED.
    """
    if not read_schema(artifacts.SOURCE_IMAGES).equals(IMAGES_SCHEMA):
        raise UserError(f"{artifacts.SOURCE_IMAGES} has other columns than this version reads. `dvc repro source_images` makes it anew.")
    rejected: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    usable: list[pl.DataFrame] = []
    waiting: list[pa.RecordBatch] = []  # of the next of them
    boilerplate = captions.pattern(settings.boilerplate_captions)
    read: deque[pa.RecordBatch] = deque()  # without their images, which are looked at

    def images() -> Iterator[tuple[list[bytes], list[bytes]]]:
        for batch in read_batches(artifacts.SOURCE_IMAGES, IMAGES_SCHEMA.names, ROWS_PER_BATCH):
            some = batch["image"].to_pylist()
            digests = [hashlib.sha256(image).digest() for image in some]
            read.append(batch.drop_columns(["image"]).append_column("sha256", pa.array([digest.hex() for digest in digests], pa.string())))
            yield some, digests

    previous: str | None = None  # the id before
    place, count = 0, 0
    with writing_rows(ENCODED, ENCODED_SCHEMA) as write, THUMBNAILS.open("wb") as thumbnails, FINGERPRINTS.open("wb") as fingerprints:
        each = chain.from_iterable(inspect_all(images(), Inspector(_how(settings), settings.max_decode_seconds), engine))
        looked = track(each, total=row_count(artifacts.SOURCE_IMAGES), what="decoding", unit="images")
        for first in looked:
            batch = read.popleft()
            found = [first, *islice(looked, len(batch) - 1)]
            stay = _staying(batch, found, previous, settings, rejected)
            previous = batch["id"][-1].as_py()
            rows = batch.take(pa.array(stay, pa.int64()))
            kept = [one for number in stay if isinstance(one := found[number], Usable)]
            words = [captions.clean(own, boilerplate, settings.max_caption_characters) for own in rows["captions"].to_pylist()]
            for name, one, (_, said) in zip(rows["id"].to_pylist(), kept, words, strict=True):
                if one.image is not None:
                    write({"id": name, "image": one.image})
                notes += ({"id": name, "note": note, "detail": detail} for note, detail in (*one.notes, *said))
            thumbnails.write(b"".join(one.thumbnail for one in kept))
            fingerprints.write(b"".join(one.fingerprint for one in kept))
            waiting.append(_waiting(rows, kept, [own for own, _ in words], [place + number for number in stay], count))
            place, count = place + len(batch), count + len(stay)
            if len(waiting) == BATCHES_PER_FRAME:
                usable.append(pl.DataFrame(pa.Table.from_batches(waiting)))
                waiting.clear()
    usable.append(pl.DataFrame(pa.Table.from_batches(waiting, WAITING_SCHEMA)))
    return pl.concat(usable, rechunk=False), rejected, notes


def _staying(
    batch: pa.RecordBatch,
    found: list[Usable | BadPicture],
    previous: str | None,
    settings: params.CuratedImages,
    rejected: list[dict[str, Any]],
) -> list[int]:
    """Which rows stay; the others are added to `rejected`. `previous`: the id before the first."""
    stay: list[int] = []
    for number, (name, license, one) in enumerate(zip(batch["id"].to_pylist(), batch["license"].to_pylist(), found, strict=True)):
        if previous is not None and name < previous:
            raise UserError(f"{artifacts.SOURCE_IMAGES} is not in order of id. `dvc repro source_images` makes it anew.")
        if name == previous:
            rejected.append({"id": name, "reason": "duplicate_id", "detail": "an earlier row has this id"})
        elif isinstance(one, BadPicture):
            rejected.append({"id": name, "reason": one.reason, "detail": one.detail})
        elif settings.licenses is not None and license not in settings.licenses:
            allowed = ", ".join(settings.licenses)
            rejected.append({"id": name, "reason": "license", "detail": f"its licence is {license}; allowed are {allowed}"})
        else:
            stay.append(number)
        previous = name
    return stay


def _waiting(rows: pa.RecordBatch, found: list[Usable], clean: list[list[str]], places: list[int], count: int) -> pa.RecordBatch:
    """Rows of WAITING_SCHEMA, the first of which is row `count` in THUMBNAILS."""
    own = {
        "captions": clean,
        "width": [one.width for one in found],
        "height": [one.height for one in found],
        "pixels": [one.pixels for one in found],
        "thumbnail": range(count, count + len(found)),
        "place": places,
        "encoded": [one.image is not None for one in found],
    }
    columns = [pa.array(own[field.name], field.type) if field.name in own else rows[field.name] for field in WAITING_SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=WAITING_SCHEMA)


def _with_families(usable: pl.DataFrame) -> pl.DataFrame:
    """With a family for every label: the one that any of its pictures has, in whichever source, else the label itself."""
    given = usable.drop_nulls(["label", "family"]).unique(["label", "family"], keep="first", maintain_order=True)
    family_of = one_family(given.select("label", "family", "id").iter_rows())
    return usable.with_columns(family=pl.col("label").replace(family_of))


def _near_duplicates(usable: pl.DataFrame, settings: params.CuratedImages) -> tuple[pl.DataFrame, Pairs]:
    """The pictures in order of worth, and the pairs of them that look the same."""
    if settings.near_duplicates == "ignore":
        return usable.clear(), Pairs(*np.zeros((3, 0), np.int64))
    ranked = copies.by_worth(usable).select("id", "label", "thumbnail")
    logger.info("looking for near-duplicates among %d pictures", ranked.height)
    looks = copies.looks_of(FINGERPRINTS, THUMBNAILS, ranked["thumbnail"].to_numpy())
    return ranked, copies.alike(looks, looks, settings.near_duplicate_bits)


def _notes_of(kept: pl.DataFrame, notes: list[dict[str, Any]], ranked: pl.DataFrame, pairs: Pairs) -> list[dict[str, Any]]:
    """Those of kept pictures, in order of id."""
    own = pl.Series([note["id"] for note in notes], dtype=pl.String)
    found = [notes[row] for row in np.flatnonzero(own.is_in(kept["id"].implode()))] + list(copies.noted(ranked, pairs, kept))
    if found:
        logger.info(
            "noted of kept pictures: %s", ", ".join(f"{count} {note}" for note, count in sorted(Counter(n["note"] for n in found).items()))
        )
    return sorted(({"other": None} | note for note in found), key=lambda note: (note["id"], note["note"], note["detail"]))


def _without(usable: pl.DataFrame, rejected: list[dict[str, Any]], leaving: list[dict[str, str]]) -> pl.DataFrame:
    rejected += leaving
    return usable.filter(~pl.col("id").is_in([row["id"] for row in leaving]))


def _without_benchmarks(
    usable: pl.DataFrame, rejected: list[dict[str, Any]], root: Path, settings: params.CuratedImages, engine: Engine
) -> pl.DataFrame:
    """Take pictures out of training and validation that look like one of a public benchmark, which would measure what was trained on."""
    how = _how(settings) | {"blank_range": None, "max_aspect_ratio": None}
    names, looks = look_at(root, Inspector(how, settings.max_decode_seconds), engine)
    if not names:
        return usable
    trained = usable.filter(pl.col("split").is_in(copies.TRAINED_ON))
    own = copies.looks_of(FINGERPRINTS, THUMBNAILS, trained["thumbnail"].to_numpy())
    found = copies.like_benchmarks(trained, own, names, looks, settings.near_duplicate_bits)
    return _without(usable, rejected, found)


def _distinct(usable: pl.DataFrame, rejected: list[dict[str, Any]]) -> pl.DataFrame:
    alike = usable.filter(pl.len().over("pixels") > 1)
    rows = alike.to_dicts()
    repeated, captions = repeated_pictures(rows, alike["pixels"].to_list())
    for number, (reason, detail, other) in repeated.items():
        rejected.append({"id": rows[number]["id"], "reason": reason, "detail": detail, "other": other})
    usable = usable.filter(~pl.col("id").is_in([rows[number]["id"] for number in repeated])) if repeated else usable
    if not captions:
        return usable
    merged = {"id": [rows[number]["id"] for number in captions], "captions": list(captions.values())}
    return usable.update(pl.DataFrame(merged, schema={name: usable.schema[name] for name in merged}), on="id", how="left")


def _without_small_classes(usable: pl.DataFrame, rejected: list[dict[str, Any]], min_images: int) -> pl.DataFrame:
    counts = usable.drop_nulls("label")["label"].value_counts()
    small = too_small_classes(dict(counts.iter_rows()), min_images)
    leaves = pl.col("label").is_in(list(small)).fill_null(value=False)
    for name, label in usable.filter(leaves).select("id", "label").iter_rows():
        reason, detail, _ = small[label]
        rejected.append({"id": name, "reason": reason, "detail": detail})
    return usable.filter(~leaves)


def _without_near_test(usable: pl.DataFrame, rejected: list[dict[str, Any]], min_difference: float) -> pl.DataFrame:
    """Take pictures out of training and validation that show a test picture, or its mirror image, since training mirrors pictures: the
    test split stays as it is."""
    if min_difference <= 0:
        return usable
    test = usable.filter(pl.col("split") == "test")
    others = usable.filter(pl.col("split").is_in(["train", "validation"]))
    own, theirs = _thumbnails(others), _thumbnails(test)
    near = near_identical(own, theirs, min_difference, keep="copies")
    mirrored = near_identical(Mirrored(own), theirs, min_difference, keep="mirrored")
    leaving = []
    for number, found in (mirrored | near).items():
        shown = test.row(found, named=True)
        what = "nearly the same pixels as" if number in near else "nearly the mirror image of"
        detail = f"{what} the test picture {shown['id']} of class {shown['label']}"
        leaving.append(others["id"][number])
        rejected.append({"id": leaving[-1], "reason": "near_test", "detail": detail, "other": shown["id"]})
    if len(leaving) > MANY_NEAR_TEST * others.height:
        logger.warning(
            "%d of %d training and validation pictures leave because they, or their mirror images, are nearly the same as test pictures;"
            " the table of rejected pictures names the pairs. If they differ in what matters, lower curated_images.min_difference_to_test",
            len(leaving),
            others.height,
        )
    return usable.filter(~pl.col("id").is_in(leaving))


def _nearest_table(usable: pl.DataFrame) -> pa.Table:
    """NEAREST_SCHEMA, one row per test picture in order of id."""
    test, train = (usable.filter(pl.col("split") == split) for split in ("test", "train"))
    rows, correlations, differences = nearest(_thumbnails(test), _thumbnails(train), keep="nearest")
    columns = {"id": test["id"].to_list(), "nearest": train["id"][rows].to_list(), "correlation": correlations, "difference": differences}
    return pa.table(columns, schema=NEAREST_SCHEMA)


def _thumbnails(pictures: pl.DataFrame) -> Thumbnails:
    return Thumbnails(THUMBNAILS, pictures["thumbnail"].to_numpy())


def _with_splits(usable: pl.DataFrame, rejected: list[dict[str, Any]], settings: params.CuratedImages) -> pl.DataFrame:
    try:
        splits = split_images(
            *(usable[name].to_list() for name in ("id", "label", "family", "given_split")),
            seed=settings.seed,
            test_fraction=settings.test_fraction,
            validation_classes=settings.validation_classes,
            validation_pictures=settings.validation_pictures,
        )
    except UserError as error:
        raise UserError(
            f"{error} Each class needs {settings.min_images_per_class} different pictures"
            f" (curated_images.min_images_per_class). {len(rejected)} picture(s) were rejected{_summary(rejected, examples=3)}."
        ) from None
    return usable.with_columns(split=pl.Series(splits, dtype=pl.String))


def _summary(rejected: list[dict[str, Any]], examples: int) -> str:
    """ ": 2 undecodable (b.jpg: no bytes; …), 1 too_small (…)", with up to `examples` of each reason; "" without rejected rows."""
    by_reason: dict[str, list[str]] = {}
    for row in rejected:
        by_reason.setdefault(row["reason"], []).append(f"{row['id']}: {row['detail']}")
    parts = [
        f"{len(rows)} {reason}" + (f" ({'; '.join(rows[:examples])}{'; …' if len(rows) > examples else ''})" if examples else "")
        for reason, rows in sorted(by_reason.items())
    ]
    return f": {', '.join(parts)}" if parts else ""


def _check(kept: pl.DataFrame, min_side: int) -> dict[str, Any]:
    """Run the expectations. Also write their result where dvc does not remove it, so that it can be read after a failure."""
    from assets.curated_images.expectations import failures, validate

    logger.info("checking the expectations")
    result = validate(kept.drop(OF_WAITING), min_side)
    artifacts.write_json(artifacts.LAST_EXPECTATIONS, result)
    if not result["success"]:
        raise UserError(
            f"the curated images do not meet {len(failures(result))} expectation(s): {'; '.join(failures(result))}."
            f" Details: {artifacts.LAST_EXPECTATIONS}. Nothing was written."
        )
    return result


def _write_kept(path: Path, kept: pl.DataFrame) -> None:
    """Write rows in order of split, then id. The source is in order of id, as `kept` is, so one pass over it per split is enough."""
    columns = kept.select(COLUMNS_SCHEMA.names)
    with writing_batches(path, CURATED_SCHEMA) as write:
        for split in SPLITS:
            rows = np.flatnonzero(kept["split"] == split)
            places, encoded = kept["place"].gather(rows).to_numpy(), kept["encoded"].gather(rows).to_numpy()
            anew = _encoded_images(kept["id"].gather(rows[encoded]).to_list())
            start = done = 0
            for batch in read_batches(artifacts.SOURCE_IMAGES, ["image"], ROWS_WRITTEN_AT_ONCE) if len(places) else ():
                until = int(np.searchsorted(places, start + len(batch)))
                images = batch["image"].take(pa.array(places[done:until] - start))
                if encoded[done:until].any():
                    its_own = zip(images, encoded[done:until], strict=True)
                    images = pa.array([next(anew) if new else image.as_py() for image, new in its_own], images.type)
                for part in columns[rows[done:until]].to_arrow().cast(COLUMNS_SCHEMA).combine_chunks().to_batches():
                    write(part.add_column(CURATED_SCHEMA.get_field_index("image"), CURATED_SCHEMA.field("image"), images))
                start, done = start + len(batch), until
            assert done == len(places), (done, len(places))


def _encoded_images(ids: list[str]) -> Iterator[bytes]:
    """Of ENCODED, those of some ids, all in order of id."""
    wanted = iter(ids)
    name = next(wanted, None)
    for batch in read_batches(ENCODED, ENCODED_SCHEMA.names, ROWS_PER_BATCH) if ids else ():
        for each, image in zip(batch["id"].to_pylist(), batch["image"], strict=True):
            if each == name:
                yield image.as_py()
                name = next(wanted, None)
