"""What Dagster shows of a stage, read from its artefacts, so that a stage that dvc skipped shows the same as one that ran.

Keyed by stage name; a stage without an entry shows nothing. Heavy libraries are imported when an artefact is looked at, not before.
"""

import base64
import io
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import MetadataValue

from assets import artifacts
from assets.measures import SHOWN, value_of
from assets.recipes import BASE, CHAMPION

Metadata = dict[str, MetadataValue]

NOT_SHOWN = "not shown"  # the entry that stands for what could not be read
THUMBNAIL = 48  # pixels
THUMBNAILS, PLACES, NEAR = 24, 4, 512  # pictures, from so many places of a table, of so many rows each
SEARCHES, HITS = 4, 6
SHOWN_AT_ONCE = 1000  # characters of Markdown from which Dagster's pages ask for a click
STRIP, STRIP_THUMBNAIL = 6, 32  # pictures and pixels, for less than that
POINTS = 24  # of a curve, likewise
MAX_PIXELS = 50_000_000  # of a picture that is decoded for a thumbnail: nobody has checked those of a source


def describe(checkout: Path, address: str) -> Metadata:
    """Metadata of a stage's artefacts in `checkout`. One line stands for what cannot be read: showing must not fail a run."""
    stage, _, recipe = address.partition("@")
    if stage not in _DESCRIBE:
        return {}
    try:
        return _DESCRIBE[stage](checkout, recipe)
    except Exception as problem:  # of any library that reads an artefact
        return {NOT_SHOWN: MetadataValue.text(f"the artefacts cannot be read: {type(problem).__name__}: {problem}")}


def sent_by(messages: Mapping[str, Any]) -> Metadata:
    """What a stage reported while it ran (assets.progress.report) and its artefacts do not hold."""
    return {
        _NAMES.get(name, name): _value(value)
        for name, value in messages.items()
        if not name.startswith("epoch ")  # each epoch's steps/s
    }


_NAMES = {"images_per_second": "images/s"}


def _value(value: Any) -> MetadataValue:
    if isinstance(value, bool):
        return MetadataValue.bool(value)
    if isinstance(value, int):
        return MetadataValue.int(value)
    if isinstance(value, float):
        return MetadataValue.float(value)
    return MetadataValue.text(value) if isinstance(value, str) else MetadataValue.json(value)


def _images(path: Path) -> Metadata:
    """Of a picture table."""
    from assets.pictures.table import read_rows, read_schema

    known = read_schema(path).names
    columns = [name for name in ("id", "label", "class_name", "source", "license", "split") if name in known]
    rows = read_rows(path, columns=columns)
    labels = {label for label in rows["label"].to_pylist() if label is not None}
    encoded = _spread_pictures(path, rows["id"].to_pylist())
    found: Metadata = {
        "dagster/row_count": MetadataValue.int(rows.num_rows),
        "classes": MetadataValue.int(len(labels)),
        "pictures": _strip(encoded[:: max(1, len(encoded) // STRIP)]),
        "sources": MetadataValue.md(_counts("source", rows["source"].to_pylist())),
        "licences": MetadataValue.md(_counts("licence", rows["license"].to_pylist())),
        "five rows": MetadataValue.md(_table(rows.slice(0, 5).to_pylist())),
        "more pictures": _grid([encoded[start : start + 12] for start in range(0, len(encoded), 12)]),
    }
    if "split" in columns:
        found["splits"] = MetadataValue.md(_counts("split", rows["split"].to_pylist()))
    return found


def _source_images(checkout: Path, recipe: str) -> Metadata:
    return _images(checkout / artifacts.SOURCE_IMAGES)


def _curated_images(checkout: Path, recipe: str) -> Metadata:
    import pyarrow.parquet as pq

    rejected = pq.read_table(checkout / artifacts.REJECTED_IMAGES)
    statistics = artifacts.read_json(checkout / artifacts.EXPECTATIONS)["statistics"]
    return {
        **_images(checkout / artifacts.CURATED_IMAGES),
        "rejected": MetadataValue.int(rejected.num_rows),
        "rejected by reason": MetadataValue.md(_counts("reason", rejected["reason"].to_pylist())),
        "noted of kept pictures": MetadataValue.md(_counts("note", pq.read_table(checkout / artifacts.NOTES)["note"].to_pylist())),
        "shown with pictures in": MetadataValue.path(str((checkout / artifacts.CURATION_PAGE).absolute())),  # once report has run
        "expectations": MetadataValue.text(f"{statistics['successful']} of {statistics['evaluated']} met"),
        "new since the last publish": MetadataValue.md(drop_table(artifacts.read_json(checkout / artifacts.DROP))),
    }


def drop_table(drop: Mapping[str, Any]) -> str:
    """New pictures beside the accepted ones, as Markdown."""
    if drop["decision"] is None:
        return "nothing, or nothing was published yet"
    shown = ("name", "accepted", "new", "share", "warn", "block", "outcome")
    said = f"{drop['new']} new pictures and {drop['rejected']} rejected ones, beside {drop['accepted']} (drop {drop['name']})"
    return f"{said}: {drop['decision']}\n\n{_table([{name: row[name] for name in shown} for row in drop['rows']])}"


def _model(checkout: Path, recipe: str) -> Metadata:
    folder = checkout / artifacts.model_dir(recipe)
    card = artifacts.read_json(folder / artifacts.MODEL_CARD)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {
        "model": MetadataValue.path(str(folder.absolute())),
        "size (MB)": MetadataValue.float(round(size / 1e6, 1)),
        "model card": MetadataValue.json(card),
    }


def _base_clip(checkout: Path, recipe: str) -> Metadata:
    card = artifacts.read_json(checkout / artifacts.model_dir(BASE) / artifacts.MODEL_CARD)
    trained = _training(card["alignment"], card["kept"]) if "alignment" in card else {}  # a checkpoint of others has no history
    return trained | _model(checkout, BASE)


def _tower(checkout: Path, recipe: str) -> Metadata:
    history = artifacts.read_json(checkout / artifacts.history_file(recipe))
    return _training(history["rows"], history["kept"]) | _model(checkout, recipe)


def _training(rows: list[dict[str, Any]], kept: dict[str, Any]) -> Metadata:
    validation = sorted(name for name in rows[-1] if name.startswith("validation_"))
    return {
        "epochs": MetadataValue.int(rows[-1]["epoch"]),
        "kept": MetadataValue.text(kept["said"]),
        "loss": MetadataValue.float(float(rows[-1]["loss"])),
        "loss curve": _curve([row["epoch"] for row in rows], {"loss": [row["loss"] for row in rows]}),
        "validation curve": _curve([row["epoch"] for row in rows], {name: [row[name] for row in rows] for name in validation}),
        "history": MetadataValue.md(_table(rows)),
    }


def _pseudo_captions(checkout: Path, recipe: str) -> Metadata:
    import pyarrow.parquet as pq

    captions = pq.read_table(checkout / artifacts.CAPTIONS)
    images = pq.read_table(checkout / artifacts.IMAGE_CAPTIONS).to_pylist()
    words = dict(zip(captions["caption_id"].to_pylist(), captions["caption"].to_pylist(), strict=True))
    examples = [
        {
            "image": row["id"],
            "captions": ", ".join(
                f"{words[caption]} ({similarity:.2f}{', own' if own else ''})"
                for caption, similarity, own in zip(row["caption_ids"], row["similarities"], row["own"], strict=True)
            ),
        }
        for row in images[:: max(1, len(images) // 5)][:5]
    ]
    return {
        "dagster/row_count": MetadataValue.int(captions.num_rows),
        "clusters": MetadataValue.int(len(set(captions["cluster"].to_pylist()))),
        "images": MetadataValue.int(len(images)),
        "own captions per image": MetadataValue.float(_mean([sum(row["own"]) for row in images])),
        "found captions per image": MetadataValue.float(_mean([len(row["own"]) - sum(row["own"]) for row in images])),
        "images without a caption": MetadataValue.int(sum(not row["caption_ids"] for row in images)),
        "five images": MetadataValue.md(_table(examples)),
    }


def _mean(counts: Sequence[int]) -> float:
    return round(sum(counts) / max(1, len(counts)), 2)


def _training_captions(checkout: Path, recipe: str) -> Metadata:
    import pyarrow.parquet as pq

    folder = checkout / artifacts.training_captions_dir(recipe)
    return {
        "dagster/row_count": MetadataValue.int(pq.read_metadata(folder / artifacts.CAPTIONS.name).num_rows),
        "images": MetadataValue.int(pq.read_metadata(folder / artifacts.IMAGE_CAPTIONS.name).num_rows),
    }


def _evaluation(checkout: Path, recipe: str) -> Metadata:
    metrics = artifacts.read_json(checkout / artifacts.evaluation_dir(recipe) / "metrics.json")
    return {
        "counts": MetadataValue.json(metrics["counts"]),
        "metrics": MetadataValue.md(_table([_row(metrics)])),
        **{name: MetadataValue.float(value) for name, value in _row(metrics).items() if isinstance(value, float)},
    }


def _champion(checkout: Path, recipe: str) -> Metadata:
    told = artifacts.read_json(checkout / artifacts.CHAMPION)
    if told["recipe"] is None:
        return {"champion": MetadataValue.text("there is none yet: `make promote` makes one of the published recipe")}
    seen = artifacts.read_json(checkout / artifacts.evaluation_dir(CHAMPION) / artifacts.SEEN)["families"]
    return {
        "champion": MetadataValue.text(f"{told['recipe']}, model sha256 {told['model_sha256'][:16]}…"),
        "when promoted": MetadataValue.md(_table([_row(told["metrics"])])),
        "families of test classes it was trained on": MetadataValue.json(seen),
        **_evaluation(checkout, CHAMPION),
    }


def _promotion(checkout: Path, recipe: str) -> Metadata:
    verdict = artifacts.read_json(checkout / artifacts.VERDICT)
    return {
        "the recipes": MetadataValue.md(_table([_row(row) for row in artifacts.read_json(checkout / artifacts.METRICS)["rows"]])),
        "decision": MetadataValue.text(verdict["decision"]),
        "reasons": MetadataValue.md("\n".join(f"- {reason}" for reason in verdict["reasons"])),
    }


def _report(checkout: Path, recipe: str) -> Metadata:
    loss = checkout / artifacts.PLOTS / "loss.png"
    return {
        "page": MetadataValue.path(str((checkout / artifacts.REPORT_PAGE).absolute())),
        "curation page": MetadataValue.path(str((checkout / artifacts.CURATION_PAGE).absolute())),
        **({"loss": _picture_file(loss, 800)} if loss.exists() else {}),
    }


def _search_table(checkout: Path, recipe: str) -> Metadata:
    import lancedb

    manifest = artifacts.read_json(checkout / artifacts.TABLE_MANIFEST)
    uri = checkout / artifacts.LANCEDB
    table = lancedb.connect(uri).open_table(artifacts.TABLE_NAME)
    searches = _searches(table)
    return {
        "dagster/row_count": MetadataValue.int(manifest["rows"]),
        "dagster/uri": MetadataValue.path(str(uri.absolute())),
        "table version": MetadataValue.int(int(table.version)),
        "recipe": MetadataValue.text(manifest["recipe"]),
        "indexes": MetadataValue.json(manifest["indexes"]),
        "left out": MetadataValue.int(len(manifest["left_out"])),
        "a sample search": _strip(searches[0] if searches else []),
        "sample searches": _grid(searches),
    }


def _export(checkout: Path, recipe: str) -> Metadata:
    card = artifacts.read_json(checkout / artifacts.EXPORT / artifacts.EXPORT_CARD)
    return {
        "folder": MetadataValue.path(str((checkout / artifacts.EXPORT).absolute())),
        "recipe": MetadataValue.text(card["recipe"]),
        **{precision: MetadataValue.json(measured) for precision, measured in card["precisions"].items()},
    }


_DESCRIBE: dict[str, Callable[[Path, str], Metadata]] = {
    "source_images": _source_images,
    "curated_images": _curated_images,
    "base_clip": _base_clip,
    "pseudo_captions": _pseudo_captions,
    "training_captions": _training_captions,
    "image_tower": _tower,
    "text_tower": _tower,
    "evaluation": _evaluation,
    "champion": _champion,
    "promotion": _promotion,
    "report": _report,
    "search_table": _search_table,
    "export": _export,
}


def _row(metrics: dict[str, Any]) -> dict[str, Any]:
    """The measures of a recipe by their names, in percent; None for one that was not measured."""
    return {"recipe": metrics["recipe"]} | {measure.name: value_of(metrics, measure.key) for measure in SHOWN}


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of rows with the same keys; "" for none."""
    if not rows:
        return ""

    def cell(value: Any) -> str:
        text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    lines = [list(rows[0]), ["---"] * len(rows[0]), *([cell(row.get(name)) for name in rows[0]] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counts(name: str, values: Sequence[Any]) -> str:
    return _table([{name: value, "rows": count} for value, count in Counter(values).most_common(20)])


def _spread_pictures(path: Path, ids: list[str]) -> list[bytes]:
    """Encoded pictures from four places of a table, so that few of its row groups are read."""
    from assets.pictures.table import read_images_of

    apart = max(1, min(len(ids) // PLACES, NEAR) // (THUMBNAILS // PLACES))
    starts = [place * len(ids) // PLACES for place in range(PLACES)]
    wanted = list(dict.fromkeys(one for start in starts for one in ids[start::apart][: THUMBNAILS // PLACES]))
    found = read_images_of(path, wanted)
    return [found[one] for one in wanted]


def _strip(encoded: list[bytes]) -> MetadataValue:
    """A few pictures in a row, small enough for Dagster to show them without a click."""
    found = MetadataValue.md("none")
    for quality in (5, 15, 30, 50, 75):
        buffer = io.BytesIO()
        _canvas([encoded[:STRIP]], STRIP_THUMBNAIL).save(buffer, "WEBP", quality=quality, method=6)
        tried = MetadataValue.md(_embedded(buffer.getvalue(), "webp"))
        if quality > 5 and len(tried.value) >= SHOWN_AT_ONCE:
            break
        found = tried
    return found


def _grid(rows: list[list[bytes]]) -> MetadataValue:
    return _picture(_canvas(rows, THUMBNAIL))


def _canvas(rows: list[list[bytes]], side: int) -> Any:
    """Rows of encoded pictures as one small picture; one that cannot be decoded stays white."""
    from PIL import Image

    from assets.pictures.apart import opened
    from assets.pictures.decoding import BadPicture

    step = side + side // 12
    canvas = Image.new("RGB", (max(map(len, rows), default=1) * step, max(1, len(rows)) * step), "white")
    for down, row in enumerate(rows):
        for across, data in enumerate(row):
            try:
                small = opened(data, MAX_PIXELS)
            except BadPicture:
                continue
            small.thumbnail((side, side))
            canvas.paste(small, (across * step + side // 24, down * step + side // 24))
    return canvas


def _picture(picture: Any, words: str = "pictures") -> MetadataValue:
    buffer = io.BytesIO()
    picture.convert("RGB").quantize(128).save(buffer, "PNG", optimize=True)
    return MetadataValue.md(_embedded(buffer.getvalue(), "png", words))


def _embedded(data: bytes, kind: str, words: str = "") -> str:
    return f"![{words}](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def _picture_file(path: Path, width: int) -> MetadataValue:
    from PIL import Image

    with Image.open(path) as picture:
        picture.thumbnail((width, width))
        return _picture(picture, path.stem)


def _curve(epochs: list[int], lines: dict[str, list[float | None]]) -> MetadataValue:
    """Lines over epochs as an SVG, each scaled to its own range, which the words beside it name."""
    width, height, margin = 240, 80, 6
    shown = sorted({round(step * (len(epochs) - 1) / POINTS) for step in range(POINTS + 1)})
    drawn, words = [], []
    for (name, values), color in zip(lines.items(), itertools.cycle(("#1f77b4", "#d62728", "#2ca02c", "#9467bd"))):
        known = [(epochs[row], value) for row in shown if (value := values[row]) is not None]
        if not known:
            continue
        low, high = min(value for _, value in known), max(value for _, value in known)
        points = " ".join(
            f"{margin + (width - 2 * margin) * ((epoch - epochs[0]) / (epochs[-1] - epochs[0]) if len(epochs) > 1 else 0.5):.0f},"
            f"{height - margin - (height - 2 * margin) * ((value - low) / (high - low) if high > low else 0.5):.0f}"
            for epoch, value in known
        )
        drawn.append(f"<polyline points='{points}' fill='none' stroke='{color}' stroke-width='2' stroke-linecap='round'/>")
        words.append(f"{name} from {known[0][1]:.4g} to {known[-1][1]:.4g}")
    svg = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'>{''.join(drawn)}</svg>"
    return MetadataValue.md(f"{_embedded(svg.encode(), 'svg+xml')}\n\n{'; '.join(words)}")


def _searches(table: Any) -> list[list[bytes]]:
    """Pictures of the table as queries, each with its nearest others. By stored vectors: no model is loaded to show this."""
    lines = []
    for offset in range(0, table.count_rows(), max(1, table.count_rows() // SEARCHES))[:SEARCHES]:
        (query,) = table.search().select(["id", "image", "vector"]).limit(1).offset(offset).to_list()
        found = table.search(query["vector"]).distance_type("cosine").select(["id", "image", "_distance"]).limit(HITS + 1).to_list()
        lines.append([query["image"], *[hit["image"] for hit in found if hit["id"] != query["id"]][:HITS]])
    return lines
