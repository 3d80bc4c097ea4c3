"""The same eleven pictures as each kind of source, written by what people write them with."""

from __future__ import annotations

import base64
import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ALL_COLUMNS = {"image": "picture", "id": "name", "label": "kind", "family": "clan", "split": "part", "captions": "said"}
WITHOUT_IMAGE = {column: name for column, name in ALL_COLUMNS.items() if column != "image"}
CREDIT = {"license": "CC0-1.0", "attribution": "me"}
CLASSES = ("owl", "café", "red_panda")


def pictures() -> dict[str, dict[str, Any]]:
    """Path in a folder → picture, kind, clan, part and what was said: three classes of three pictures, one without a label, one broken."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(11):
        label = CLASSES[number // 3] if number < 9 else None
        drawn = io.BytesIO()
        image = Image.new("RGB", (16, 16), (20 * number, 255 - 20 * number, 90))
        image.paste((255 - 20 * number, 0, 20 * number), (number, 0, number + 4, 16 - number))
        image.save(drawn, "png")
        name = f"{label}/{number}.png" if label else f"{number}.png"
        found[name] = {
            "picture": drawn.getvalue() if number < 10 else b"no picture",
            "kind": label,
            "clan": "birds" if label == "owl" else None,
            "part": "test" if number == 0 else "train" if number < 3 else None,
            "said": [f"picture {number}", "the first; of all, «é»"] if number % 2 == 0 else [],
        }
    return dict(sorted(found.items()))


def folder(root: Path) -> dict[str, Any]:
    write_files(root)
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "caption", "family", "split"])
        for name, row in pictures().items():
            writer.writerows([name, said, row["clan"] or "", row["part"] or ""] for said in row["said"] or [""])
    return {"kind": "image_folder", "root": str(root), "folders": ["label"]}


def write_files(root: Path) -> None:
    for name, row in pictures().items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(row["picture"])


def parquet(root: Path) -> dict[str, Any]:
    """Not in order of id, in two files of small row groups."""
    root.mkdir()
    rows = [{"name": name} | row for name, row in pictures().items()][::-1]
    for number, part in enumerate((rows[:4], rows[4:])):
        pq.write_table(pa.Table.from_pylist(part, schema=SCHEMA), root / f"part-{number}.parquet", row_group_size=3)
    return {"kind": "table", "root": str(root), "pictures": None, "columns": ALL_COLUMNS}


SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("picture", pa.binary()),
        ("kind", pa.string()),
        ("clan", pa.string()),
        ("part", pa.string()),
        ("said", pa.list_(pa.string())),
    ]
)


def csv_of_paths(root: Path) -> dict[str, Any]:
    """One row per caption, as captions are often kept; the pictures' own paths are the ids."""
    write_files(root / "files")
    with (root / "table.csv").open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["Picture", "kind", "clan", "part", "said"])
        for name, row in pictures().items():
            writer.writerows(["./" + name, row["kind"] or "", row["clan"] or "", row["part"] or "", said] for said in row["said"] or [""])
    columns = {column: name for column, name in ALL_COLUMNS.items() if column != "id"}
    return {"kind": "table", "root": str(root / "table.csv"), "pictures": str(root / "files"), "columns": columns}


def jsonl(root: Path) -> dict[str, Any]:
    root.mkdir()
    with (root / "table.jsonl").open("w", encoding="utf-8") as stream:
        for name, row in pictures().items():
            said = {"name": name} | row | {"picture": base64.b64encode(row["picture"]).decode()}
            stream.write(json.dumps(said) + "\n")
    return {"kind": "table", "root": str(root / "table.jsonl"), "pictures": None, "columns": ALL_COLUMNS}


def tar(root: Path) -> dict[str, Any]:
    """As img2dataset lays samples out: key.png, key.txt, key.json, in shards of numbered keys."""
    root.mkdir()
    rows = list(pictures().items())
    for shard in range(2):
        with tarfile.open(root / f"{shard:05}.tar", "w") as file:
            for number, (name, row) in list(enumerate(rows))[shard::2]:
                key = f"{shard:05}{number:04}"
                about = {"name": name, "kind": row["kind"], "clan": row["clan"], "part": row["part"], "said": row["said"], "key": key}
                for suffix, content in (("png", row["picture"]), ("txt", b"x"), ("json", json.dumps(about).encode())):
                    member = tarfile.TarInfo(f"{key}.{suffix}")
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
        (root / f"{shard:05}_stats.json").write_text("{}")
    return {"kind": "webdataset", "root": str(root), "columns": WITHOUT_IMAGE}


def hugging_face(root: Path) -> dict[str, Any]:
    """What datasets.save_to_disk writes, for machines without that library: Arrow streams, state.json, features in the schema."""
    features = {
        "name": {"dtype": "string", "_type": "Value"},
        "picture": {"_type": "Image"},
        "kind": {"names": list(CLASSES), "_type": "ClassLabel"},
    }
    fields = [
        pa.field("name", pa.string()),
        pa.field("picture", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("kind", pa.int64()),
        *(SCHEMA.field(name) for name in ("clan", "part", "said")),
    ]
    schema = pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})
    root.mkdir()
    rows = [
        {"name": name}
        | row
        | {"picture": {"bytes": row["picture"], "path": None}, "kind": CLASSES.index(row["kind"]) if row["kind"] else -1}
        for name, row in pictures().items()
    ]
    for number, part in enumerate((rows[:5], rows[5:])):
        with pa.ipc.new_stream(root / f"data-{number:05}-of-00002.arrow", schema) as writer:
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
    (root / "cache-0123.arrow").write_bytes(b"left by a map()")
    (root / "dataset_info.json").write_text(json.dumps({"features": features}))
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": f"data-{number:05}-of-00002.arrow"} for number in range(2)]}))
    return {"kind": "hugging_face", "root": str(root), "columns": ALL_COLUMNS}


def lance_table(root: Path) -> dict[str, Any]:
    rows = [{"name": name} | row for name, row in pictures().items()]
    table = lancedb.connect(root).create_table("mine", pa.Table.from_pylist(rows[4:], schema=SCHEMA))
    table.add(pa.Table.from_pylist(rows[:4], schema=SCHEMA))
    return {"kind": "lance", "root": str(root / "mine.lance"), "columns": ALL_COLUMNS}


KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    each.__name__: each for each in (folder, parquet, csv_of_paths, jsonl, tar, hugging_face, lance_table)
}
