"""Asset checks against artefacts that are right and wrong, and what the sensors see and tell."""

from __future__ import annotations

import http.server
import json
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets import artifacts
from assets.params import Orchestration, read_params
from orchestration.asset_checks import CHECKS, Outcome, evaluate
from orchestration.metadata import NOT_SHOWN, describe
from orchestration.sensors import fingerprint, post

LOOK = {(check.stage, check.name): check.look for check in CHECKS}


@pytest.fixture(scope="module")
def settings(checkout: Path) -> Orchestration:
    return read_params(checkout / "params.yaml")[0].orchestration


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_expectations_are_told_one_by_one(tmp_path, settings):
    results = [
        {"meaning": "no empty captions", "success": True, "unexpected_count": 0, "unexpected_ids": []},
        {"meaning": "ids are unique", "success": False, "unexpected_count": 2, "unexpected_ids": ["a", "b"]},
    ]
    write_json(tmp_path / "data/curated_images/expectations.json", {"success": False, "results": results})
    outcome = LOOK["curated_images", "expectations"](tmp_path, "", settings)
    assert (outcome.passed, outcome.said) == (False, "1 of 2 expectations met; not: ids are unique")
    assert outcome.metadata["ids against them"].value == {"ids are unique": ["a", "b"]}


@pytest.mark.parametrize(("label", "sha256", "passed"), [("b", "2", True), ("a", "2", False), ("b", "1", False)])
def test_leakage_is_a_shared_class_or_file(label, sha256, passed, tmp_path, settings):
    folder = tmp_path / "data/curated_images"
    folder.mkdir(parents=True)
    rows = [
        {"id": "x", "label": "a", "sha256": "1", "split": "train"},
        {"id": "y", "label": label, "sha256": sha256, "split": "test"},
        {"id": "z", "label": None, "sha256": "1", "split": "library"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "images.parquet")
    assert LOOK["curated_images", "no_leakage"](tmp_path, "", settings).passed is passed


@pytest.mark.parametrize(
    ("losses", "passed", "warning"),
    [([2.0, 1.0], True, True), ([1.0, 2.0], False, True), ([1.0], True, False), ([1.0, None], False, False)],
)
def test_the_loss_is_finite_and_falls(losses, passed, warning, tmp_path, settings):
    write_json(tmp_path / "data/history/gpr_rea.json", {"rows": [{"loss": loss} for loss in losses]})
    outcome: Outcome = LOOK["text_tower", "loss_falls"](tmp_path, "gpr", settings)
    assert (outcome.passed, outcome.warning) == (passed, warning)


@pytest.mark.parametrize(("scale", "passed"), [(1.0, True), (1.01, False), (np.nan, False)])
def test_embeddings_have_norm_one(scale, passed, tmp_path, settings):
    folder = tmp_path / "data/evaluation/base"
    folder.mkdir(parents=True)
    rows = np.eye(4, dtype=np.float32)
    np.save(folder / "image_embeddings.npy", rows)
    np.save(folder / "text_embeddings.npy", rows * np.array([[1], [1], [1], [scale]], dtype=np.float32))
    assert LOOK["evaluation", "unit_norm"](tmp_path, "base", settings).passed is passed


@pytest.mark.parametrize(("decision", "passed"), [("publish", True), ("hold", False)])
def test_the_gate_is_the_verdict(decision, passed, tmp_path, settings):
    write_json(
        tmp_path / "data/report/verdict.json", {"recipe": "mcip", "against": "base", "decision": decision, "reasons": ["knn: worse."]}
    )
    assert LOOK["report", "promotion_gate"](tmp_path, "", settings).passed is passed


def test_showing_never_fails_whatever_the_artefacts_hold(tmp_path, settings):
    folder = tmp_path / artifacts.SOURCE_IMAGES.parent
    folder.mkdir(parents=True)
    bomb = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 50_000, 50_000, 8, 2, 0, 0, 0)  # a header that claims 2.5 gigapixels
    bomb = b"\x89PNG\r\n\x1a\n" + bomb + struct.pack(">I", zlib.crc32(bomb[4:]))
    row = {"label": "a", "class_name": "a", "group": None, "captions": [], "source": "s", "license": "l", "attribution": ""}
    rows = [{"id": str(number), "image": image, **row} for number, image in enumerate((b"", b"no picture", bomb, bomb[:20]))]
    pq.write_table(pa.Table.from_pylist(rows, schema=artifacts.IMAGES_SCHEMA), tmp_path / artifacts.SOURCE_IMAGES)
    assert describe(tmp_path, "source_images")["dagster/row_count"].value == 4
    write_json(tmp_path / artifacts.history_file("mcip"), {"rows": []})  # an IndexError
    assert "IndexError" in str(describe(tmp_path, "image_tower@mcip")[NOT_SHOWN].value)
    write_json(tmp_path / artifacts.VERDICT, [])  # a TypeError
    (gate,) = evaluate(tmp_path, settings, "report")
    assert not gate.passed
    assert "cannot be read" in str(gate.description)


def test_the_fingerprint_counts_what_is_new_without_reading(tmp_path):
    for name in ("a/1.png", "a/2.png", "3.png", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    first = fingerprint(tmp_path, since=0)
    assert (first["files"], first["newer"]) == (3, 3)
    assert fingerprint(tmp_path, since=first["newest"]) == first | {"newer": 0}
    late = first["newest"] + 1
    while True:  # the clock of the file system moves in steps
        (tmp_path / "a/4.png").write_bytes(b"")
        os.utime(tmp_path / "a/4.png", ns=(0, 0))  # as a copy that keeps times
        if (tmp_path / "a/4.png").stat().st_ctime_ns >= late:
            break
    now = fingerprint(tmp_path, since=first["newest"])
    assert (now["files"], now["newer"]) == (4, 1)


def test_a_failed_run_is_posted_as_json_and_a_dead_hook_only_logged(caplog):
    told: list[dict[str, str]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/secret"
        post(address, {"text": "retrain failed"})
        thread.join()
    assert told == [{"text": "retrain failed"}]
    post(address, {"text": "again"})
    assert "again" in caplog.text
    assert "secret" not in caplog.text
