"""Asset checks against artefacts that are right and wrong, and what the sensors see and report."""

from __future__ import annotations

import base64
import http.server
import io
import json
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import (
    DagsterInstance,
    SensorResult,
    build_run_status_sensor_context,
    build_sensor_context,
    job,
    op,
)
from PIL import Image

from assets import artifacts
from assets.errors import UserError
from assets.params import Orchestration, read_params
from assets.pictures.schema import CURATED_SCHEMA, IMAGES_SCHEMA
from assets.source_images.image_folder import find_pictures
from orchestration.asset_checks import CHECKS, Outcome, evaluate
from orchestration.metadata import NOT_SHOWN, describe
from orchestration.sensors import WEBHOOK, fingerprint, new_images_sensor, post, run_failure_hook
from tests.settings import demo_params, demo_settings

LOOK = {(check.stage, check.name): check.look for check in CHECKS}


@pytest.fixture(scope="module")
def settings(checkout: Path) -> Orchestration:
    return demo_params().orchestration


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_expectations_are_listed_one_by_one(tmp_path, settings):
    results = [
        {"meaning": "no empty captions", "success": True, "unexpected_count": 0, "unexpected_ids": []},
        {"meaning": "ids are unique", "success": False, "unexpected_count": 2, "unexpected_ids": ["a", "b"]},
    ]
    write_json(tmp_path / "data/curated_images/expectations.json", {"success": False, "results": results})
    outcome = LOOK["curated_images", "expectations"](tmp_path, "", settings)
    assert (outcome.passed, outcome.said) == (False, "1 of 2 expectations met; not: ids are unique")
    assert outcome.metadata["ids against them"].value == {"ids are unique": ["a", "b"]}


@pytest.mark.parametrize(
    ("decision", "passed", "warning", "said"),
    [
        (None, True, False, "nothing is new since the last publish, or nothing was published yet"),
        ("clear", True, False, "7 new pictures and 2 rejected ones: clear"),
        ("warn", False, True, "7 new pictures and 2 rejected ones: warn; brightness: 95% (warn)"),
        ("block", False, False, "7 new pictures and 2 rejected ones: block; brightness: 95% (block)"),
        ("accepted", True, False, "7 new pictures and 2 rejected ones: accepted; brightness: 95% (block)"),
    ],
)
def test_a_drop_warns_or_fails_as_curation_judged_it(decision, passed, warning, said, tmp_path, settings):
    outcome = {"clear": "clear", "accepted": "block"}.get(decision, decision)
    row = {"name": "brightness", "accepted": 50.0, "new": 1.0, "share": 0.95, "warn": 0.2, "block": 0.9, "outcome": outcome}
    found = {"decision": decision, "name": "abc", "accepted": 50, "new": 7, "rejected": 2, "rows": [row]}
    write_json(tmp_path / "data/curated_images/drop.json", found)
    looked = LOOK["curated_images", "drop"](tmp_path, "", settings)
    assert (looked.passed, looked.warning, looked.said) == (passed, warning, said)


@pytest.mark.parametrize(
    ("other", "passed"),
    [
        ({}, True),
        ({"label": "a"}, False),
        ({"family": "f"}, False),
        ({"sha256": "1"}, False),
        ({"label": "a", "family": "f", "given_split": "test"}, True),
    ],
)
def test_leakage_is_a_shared_class_family_or_file_unless_the_source_gives_the_split(other, passed, tmp_path, settings):
    rows = [
        {"id": "x", "label": "a", "family": "f", "sha256": "1", "split": "train"},
        {"id": "y", "label": "b", "family": "g", "sha256": "2", "split": "test"} | other,
        {"id": "z", "label": None, "sha256": "1", "split": "library"},
    ]
    rest = {"class_name": "", "image": b"", "captions": [], "source": "", "license": "", "attribution": "", "width": 1, "height": 1}
    (tmp_path / artifacts.CURATED_IMAGES).mkdir(parents=True)
    for number, row in enumerate(rows):  # in different shards
        pq.write_table(
            pa.Table.from_pylist([row | rest], schema=CURATED_SCHEMA), tmp_path / artifacts.CURATED_IMAGES / f"{number:05}.parquet"
        )
    assert LOOK["curated_images", "no_leakage"](tmp_path, "", settings).passed is passed


@pytest.mark.parametrize(
    ("losses", "passed", "warning"),
    [([2.0, 1.0], True, True), ([1.0, 2.0], False, True), ([1.0], True, False), ([1.0, None], False, False)],
)
def test_the_loss_is_finite_and_falls(losses, passed, warning, tmp_path, settings):
    write_json(tmp_path / "data/history/x.json", {"rows": [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate([None, *losses])]})
    outcome: Outcome = LOOK["text_tower", "loss_falls"](tmp_path, "x", settings)
    assert (outcome.passed, outcome.warning) == (passed, warning)


def test_a_base_that_was_trained_tells_its_loss_and_a_checkpoint_has_none(tmp_path, settings):
    look, card = LOOK["base_clip", "loss_falls"], tmp_path / "data/models/base/model_card.json"
    write_json(card, {"recipe": "base", "alignment": [{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 2.0}]})
    assert not look(tmp_path, "", settings).passed
    write_json(card, {"recipe": "base"})
    assert look(tmp_path, "", settings).passed


@pytest.mark.parametrize(("lost", "passed"), [((0.0, 0.01), True), ((0.02, 0.0), False), ((0.0, 0.02), False)])
def test_words_that_the_base_cannot_read_are_looked_at(lost, passed, tmp_path, settings):
    kinds = [
        {"what": what, "texts": 100, "lost": share, "unknown_tokens": share, "said": [f"{100 * share:g} of 100 {what} …"] if share else []}
        for what, share in zip(("class names", "captions"), lost, strict=True)
    ]
    write_json(tmp_path / "data/models/base/model_card.json", {"readable": kinds})
    outcome: Outcome = LOOK["base_clip", "readable_text"](tmp_path, "", settings)
    assert (outcome.passed, outcome.warning) == (passed, True)
    assert outcome.said == next(sentence for kind in kinds for sentence in kind["said"])
    assert outcome.metadata["captions: share lost"].value == lost[1]
    write_json(tmp_path / "data/models/base/model_card.json", {"readable": [kind | {"lost": 0.0, "said": []} for kind in kinds]})
    assert LOOK["base_clip", "readable_text"](tmp_path, "", settings).said == "all are read: 100 class names, 100 captions"


@pytest.mark.parametrize(("scale", "passed"), [(1.0, True), (1.01, False), (np.nan, False)])
def test_embeddings_have_norm_one(scale, passed, tmp_path, settings):
    folder = tmp_path / "data/evaluation/base"
    folder.mkdir(parents=True)
    rows = np.eye(4, dtype=np.float32)
    np.save(folder / "image_embeddings.npy", rows)
    np.save(folder / "text_embeddings.npy", rows * np.array([[1], [1], [1], [scale]], dtype=np.float32))
    assert LOOK["evaluation", "unit_norm"](tmp_path, "base", settings).passed is passed


def test_an_image_may_have_no_embedding_and_a_text_may_not(tmp_path, settings):
    folder = tmp_path / "data/evaluation/base"
    folder.mkdir(parents=True)
    rows = np.eye(4, dtype=np.float32)
    blank = rows * np.array([[1], [0], [1], [1]], dtype=np.float32)
    for images, texts, passed in ((blank, rows, True), (rows, blank, False)):
        np.save(folder / "image_embeddings.npy", images)
        np.save(folder / "text_embeddings.npy", texts)
        outcome = LOOK["evaluation", "unit_norm"](tmp_path, "base", settings)
        assert outcome.passed is passed
        assert f"{int(passed)} images and {int(not passed)} texts have a zero embedding" in outcome.said


@pytest.mark.parametrize(("decision", "passed"), [("publish", True), ("hold", False)])
def test_the_gate_is_the_verdict(decision, passed, tmp_path, settings):
    verdict = {"recipe": "mcip", "against": "base", "decision": decision, "reasons": ["knn: worse."]}
    write_json(tmp_path / artifacts.VERDICT, verdict)
    assert LOOK["promotion", "promotion_gate"](tmp_path, "", settings).passed is passed


def test_showing_never_fails_whatever_the_artefacts_hold(tmp_path, settings):
    (tmp_path / artifacts.SOURCE_IMAGES).mkdir(parents=True)
    bomb = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 50_000, 50_000, 8, 2, 0, 0, 0)  # a header that claims 2.5 gigapixels
    bomb = b"\x89PNG\r\n\x1a\n" + bomb + struct.pack(">I", zlib.crc32(bomb[4:]))
    row = {"label": "a", "class_name": "a", "group": None, "captions": [], "source": "s", "license": "l", "attribution": ""}
    rows = [{"id": str(number), "image": image, **row} for number, image in enumerate((b"", b"no picture", bomb, bomb[:20]))]
    pq.write_table(pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA), tmp_path / artifacts.SOURCE_IMAGES / "00000.parquet")
    assert describe(tmp_path, "source_images")["dagster/row_count"].value == 4
    write_json(tmp_path / artifacts.history_file("mcip"), {"rows": [], "kept": {}})  # an IndexError
    assert "IndexError" in str(describe(tmp_path, "image_tower@mcip")[NOT_SHOWN].value)
    write_json(tmp_path / artifacts.VERDICT, [])  # a TypeError
    (gate,) = evaluate(tmp_path, settings, "promotion")
    assert not gate.passed
    assert "cannot be read" in str(gate.description)


def test_pictures_of_a_table_of_several_shards_are_shown(tmp_path):
    folder = tmp_path / artifacts.SOURCE_IMAGES
    folder.mkdir(parents=True)
    row = {"label": "a", "class_name": "a", "group": None, "captions": [], "source": "s", "license": "l", "attribution": ""}
    for shard, color in enumerate(((255, 0, 0), (0, 0, 255))):
        drawn = io.BytesIO()
        Image.new("RGB", (40, 40), color).save(drawn, "PNG")
        rows = [{"id": f"{shard}-{number:02}", "image": drawn.getvalue(), **row} for number in range(30)]
        pq.write_table(pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA), folder / f"{shard:05}.parquet")
    shown = describe(tmp_path, "source_images")
    assert shown["dagster/row_count"].value == 60
    picture = Image.open(io.BytesIO(base64.b64decode(str(shown["more pictures"].value).partition("base64,")[2].rstrip(")"))))
    seen = {pixel for _, pixel in picture.convert("RGB").getcolors()}
    assert {(255, 0, 0), (0, 0, 255)} <= seen


def test_a_recipe_s_measures_are_those_of_the_table_of_measures(tmp_path):
    write_json(tmp_path / "data/evaluation/wide/metrics.json", {"recipe": "wide", "counts": {}, "knn": {"accuracy": 12.5}, "average": 3.5})
    shown = describe(tmp_path, "evaluation@wide")
    assert (shown["k-NN"].value, shown["average"].value) == (12.5, 3.5)
    assert "image→image mAP" not in shown, "what was not measured is no number"
    assert "image→image mAP" in str(shown["metrics"].value)


def test_the_fingerprint_counts_what_is_new_without_reading(tmp_path):
    for name in ("a/1.png", "a/2.png", "3.png", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    first = fingerprint([tmp_path], since=0)
    assert (first["files"], first["newer"]) == (3, 3)
    assert fingerprint([tmp_path], since=first["newest"]) == first | {"newer": 0}
    late = first["newest"] + 1
    while True:  # the clock of the file system moves in steps
        (tmp_path / "a/4.png").write_bytes(b"")
        os.utime(tmp_path / "a/4.png", ns=(0, 0))  # as a copy that keeps times
        if (tmp_path / "a/4.png").stat().st_ctime_ns >= late:
            break
    now = fingerprint([tmp_path], since=first["newest"])
    assert (now["files"], now["newer"]) == (4, 1)


def test_links_are_followed_but_not_in_circles_and_one_that_leads_nowhere_hides_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / "a/circle").symlink_to(tmp_path)
    (tmp_path / "a/dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert fingerprint([tmp_path], since=0)["files"] == 8
    with pytest.raises(UserError, match="2 link"):  # the stage says so when the change that is counted here starts it
        find_pictures(tmp_path)


@pytest.mark.parametrize("at", ["data/images", "file://{}/data/images"], ids=["path", "address"])
def test_the_watch_of_new_pictures_counts_each_change_once(at, tmp_path):
    params = demo_settings()
    source = {"kind": "image_folder", "root": at.format(tmp_path), "folders": ["label"], "license": "", "attribution": ""}
    params["source_images"]["sources"] = [source]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    settings = read_params(tmp_path / "params.yaml")[0]
    root = tmp_path / "data/images"
    root.mkdir(parents=True)
    for number in range(6):
        (root / f"{number}.png").write_bytes(b"")
    watch = new_images_sensor(tmp_path, settings.orchestration.model_copy(update={"retrain_from_new_images": 3}))

    def tick(cursor: str | None) -> SensorResult:
        with DagsterInstance.ephemeral() as instance:
            told = watch(build_sensor_context(instance=instance, cursor=cursor))
        assert isinstance(told, SensorResult)
        return told

    begun = tick(None)
    assert begun.skip_reason.skip_message == "6 files to begin with"
    time.sleep(0.05)  # the clock of the file system moves in steps
    for number in (0, 1):
        (root / f"{number}.png").write_bytes(b"changed")
    two = tick(begun.cursor)
    assert (two.run_requests, two.cursor) == ([], None), "counted on until they are enough"
    assert two.skip_reason.skip_message.startswith("2 files are new, changed or gone")
    (root / "5.png").unlink()
    three = tick(begun.cursor)
    assert len(three.run_requests) == 1
    assert tick(three.cursor).skip_reason.skip_message.startswith("0 files")
    root.rename(tmp_path / "unmounted")
    gone = tick(three.cursor)
    assert (gone.run_requests, gone.cursor) == ([], None), "nothing to train on"


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A web server: its address with a secret, and what it was told."""
    told: list[dict[str, str]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret", told
        server.shutdown()
        thread.join()


@op
def breaks() -> None:
    raise ValueError("the reason")


@job
def retrain_all() -> None:
    breaks()


def fail_and_tell(settings: Orchestration) -> None:
    """A run that fails, and the sensor for it."""
    with DagsterInstance.ephemeral() as instance:
        failed = retrain_all.execute_in_process(instance=instance, raise_on_error=False)
        sensor = run_failure_hook(settings)
        sensor(
            build_run_status_sensor_context(
                sensor_name="run_failure",
                dagster_instance=instance,
                dagster_run=failed.dagster_run,
                dagster_event=failed.get_run_failure_event(),
            ).for_run_failure()
        )


def test_a_failed_run_is_posted_as_json_where_params_or_the_environment_say(hook, settings, monkeypatch):
    address, told = hook
    monkeypatch.delenv(WEBHOOK, raising=False)
    fail_and_tell(settings.model_copy(update={"failure_webhook": address}))
    (first,) = told
    assert first.keys() == {"text", "job", "run_id", "error"}
    assert first["text"].startswith("onespace: retrain_all failed: ")
    monkeypatch.setenv(WEBHOOK, address)
    fail_and_tell(settings.model_copy(update={"failure_webhook": "http://127.0.0.1:9/params"}))
    assert len(told) == 2, "the environment goes first"


@pytest.mark.parametrize(
    "address", ["https:secret", "ftps://secret/", "http://[secret/", "http://127.0.0.1:port-secret/", "http://127.0.0.1/a\nsecret"]
)
def test_a_wrong_address_fails_nothing_and_stays_secret(address, settings, monkeypatch, caplog, capfd):
    monkeypatch.setenv(WEBHOOK, address)
    fail_and_tell(settings)
    assert "retrain_all failed" in caplog.text
    assert "secret" not in caplog.text + "".join(capfd.readouterr())


def test_a_hook_that_is_gone_or_answers_with_an_error_is_only_logged(caplog):
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.wfile.write(b"secret? this is no HTTP\r\n\r\n")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/secret"
        post(address, {"text": "once"})
        thread.join()
    post(address, {"text": "again"})
    assert "once" in caplog.text
    assert "again" in caplog.text
    assert "secret" not in caplog.text
