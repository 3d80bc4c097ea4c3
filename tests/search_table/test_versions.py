"""Versions of the table as its readers and publishers meet them: real LanceDB, and real second processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import lancedb
import pyarrow as pa
import pytest

from assets import artifacts
from assets.errors import UserError
from assets.params import SearchTable
from assets.search_table import open_table, search, versions, writing
from assets.search_table.stage import publish
from assets.search_table.table import MODELS, TABLE
from assets.search_table.versions import STATE, open_dataset, prune, read_versions, roll_back, tag_champion
from tests.search_table.conftest import RECIPE, curated_rows, retrain, write_curated

Settings = Callable[..., SearchTable]
Rows = list[dict[str, Any]]


def visible() -> versions.Version:
    return all_versions()[-1]


def all_versions() -> list[versions.Version]:
    dataset = open_dataset()
    assert dataset is not None
    return read_versions(dataset)


def tags() -> dict[str, int]:
    return {tag: version.number for version in all_versions() for tag in version.tags}


def table_rows() -> Rows:
    return open_table().to_arrow().sort_by("id").to_pylist()


def told() -> tuple[bytes, bytes]:
    return artifacts.TABLE_MANIFEST.read_bytes(), STATE.read_bytes()


def data_files() -> set[str]:
    return {file.name for file in (TABLE / "data").iterdir()}


def a_few_changed(rows: Rows) -> Rows:
    """One row with other words, one with another picture, one gone, one new."""
    other = curated_rows(per_class=20, first_seed=900)
    rows = [dict(row) for row in rows]
    rows[2]["captions"] = ["xylophone", "it's new"]
    rows[7] |= {name: other[7][name] for name in ("image", "sha256")}
    gone = rows.pop(11)
    return [*rows, gone | {name: other[11][name] for name in ("image", "sha256")} | {"id": "vendor's/9"}]


@pytest.fixture
def rows(unpublished: Path, settings_with: Settings) -> Rows:
    """82 rows, published once."""
    rows = curated_rows(per_class=20)
    write_curated(rows)
    publish(settings_with(), RECIPE)
    return rows


def test_only_rows_that_differ_are_written(rows: Rows, settings_with: Settings, tmp_path: Path) -> None:
    """Every publish wrote every picture again, and its manifest told how the table had come about."""
    before, files = visible(), data_files()
    write_curated(a_few_changed(rows))
    publish(settings_with(), RECIPE)
    assert visible().number == before.number + 1, "one version, so no reader sees a part of it"
    (added,) = data_files() - files
    assert sum(f.physical_rows for f in lance.dataset(TABLE).get_fragments() if f.metadata.files[0].path == added) == 3
    curated = {row["id"]: row for row in a_few_changed(rows)}
    found = table_rows()
    assert [row["id"] for row in found] == sorted(curated)
    assert all({name: row[name] for name in curated[row["id"]]} == curated[row["id"]] for row in found)
    for query, wanted in (("xylophone", [rows[2]["id"]]), ("dusk", ["b.png"])):
        hits = open_table().search(query, query_type="fts", fts_columns=["captions"]).limit(9).to_arrow()
        assert hits["id"].to_pylist() == wanted
    stats = [open_table().index_stats(f"{column}_idx") for column in ("caption", "captions")]
    assert all(each is not None and each.num_unindexed_rows == 0 for each in stats), "3 of 82 rows are too many to leave out of an index"
    by_difference = told()
    shutil.rmtree(artifacts.LANCEDB)
    publish(settings_with(), RECIPE)
    assert told() == by_difference
    assert table_rows() == found


def test_a_few_rows_stay_out_of_the_index_and_are_found(rows: Rows, settings_with: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new row that no index holds was missed, or one picture made all indexes anew."""
    monkeypatch.setattr(writing, "REINDEX_SHARE", 0.05)
    publish(settings_with(index_from_rows=80), RECIPE)
    before = {segment.uuid for index in lance.dataset(TABLE).describe_indices() for segment in index.segments}
    changed = a_few_changed(rows)
    write_curated(changed)
    publish(settings_with(index_from_rows=80), RECIPE)
    assert {segment.uuid for index in lance.dataset(TABLE).describe_indices() for segment in index.segments} == before
    assert open_table().search("xylophone", query_type="fts", fts_columns=["captions"]).limit(9).to_arrow().num_rows == 1
    for row in (changed[-1], changed[7], changed[0]):
        assert search(row["image"], k=1)["id"].to_pylist() == [row["id"]]
    assert rows[11]["id"] not in search(rows[11]["image"], k=82)["id"].to_pylist()


def test_the_same_rows_are_no_new_version(rows: Rows, settings_with: Settings) -> None:
    """A forced run, or other settings that change no row, pushed earlier versions out of what is kept."""
    before = all_versions()
    publish(settings_with(batch_size=7), RECIPE)
    assert all_versions() == before


def test_going_back_gives_the_earlier_manifest_and_writes_nothing(rows: Rows, settings_with: Settings) -> None:
    """An old git revision and `dvc repro` left another dvc.lock than that revision's."""
    first, answers = told(), search("a red heart", k=20)
    write_curated(a_few_changed(rows))
    publish(settings_with(), RECIPE)
    second, files = told(), data_files()
    assert second != first
    write_curated(rows)
    publish(settings_with(), RECIPE)
    assert told() == first
    assert data_files() == files
    assert search("a red heart", k=20).equals(answers)
    assert tags() == {"publish-0001": 2, "publish-0002": 3, "publish-0003": 4, "candidate": 4}


def test_a_new_model_is_a_whole_new_version_and_the_old_one_stays_readable(rows: Rows, settings_with: Settings) -> None:
    """Who held the table open read files that were gone, or rows of two models in one answer."""
    held = lancedb.connect(artifacts.LANCEDB).open_table("images")
    before = visible()
    for amount in (0.1, 0.2, 0.3):
        retrain(amount)
        publish(settings_with(), RECIPE)
    assert set(open_table().to_arrow()["model"].to_pylist()) == {visible().model}
    assert visible().model != before.model
    assert visible().number == before.number + 3
    assert set(held.to_arrow()["model"].to_pylist()) == {before.model}
    assert held.search("dusk", query_type="fts", fts_columns=["captions"]).limit(9).to_arrow().num_rows == 1


READER = """
import json, pathlib, time
from datetime import timedelta
import lancedb
live = lancedb.connect("data/lancedb", read_consistency_interval=timedelta(0)).open_table("images")
held = lancedb.connect("data/lancedb").open_table("images")
first = held.to_arrow()
seen, errors, reads = set(), [], 0
pathlib.Path("reading").touch()
while not pathlib.Path("stop").exists():
    try:
        for table in (live, lancedb.connect("data/lancedb").open_table("images")):
            rows = table.search().select(["id", "model"]).limit(1000).to_arrow()
            ids = rows["id"].to_pylist()
            assert len(ids) == len(set(ids)), "doubled ids"
            seen.add((len(ids), *sorted(set(rows["model"].to_pylist()))))
        assert live.search("dusk", query_type="fts", fts_columns=["captions"]).limit(9).to_arrow()["id"].to_pylist() == ["b.png"]
        assert live.search([1.0] * 16, vector_column_name="vector").distance_type("cosine").limit(5).to_arrow().num_rows == 5
        assert held.to_arrow().equals(first)
        reads += 1
    except Exception as error:
        errors.append(repr(error))
print(json.dumps({"seen": sorted(seen), "errors": errors[:3], "reads": reads}))
"""


def test_a_reader_in_another_process_sees_whole_versions_of_one_model(rows: Rows, settings_with: Settings, checkout: Path) -> None:
    """Between the rows and their index a text query failed; a plain handle failed for good from the second publish on."""
    reader = subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        allowed = {(visible().rows, visible().model)}
        while not Path("reading").exists():
            assert reader.poll() is None, reader.communicate()
            time.sleep(0.05)
        for step in range(6):
            if step % 2:
                retrain(0.1)
            write_curated([a_few_changed(rows), rows, curated_rows(per_class=15)][step % 3])
            publish(settings_with(), RECIPE)
            allowed.add((visible().rows, visible().model))
        roll_back("publish-0002")
    finally:
        Path("stop").touch()
        out, err = reader.communicate(timeout=60)
    said = json.loads(out)
    assert not said["errors"], (said, err)
    assert said["reads"] > 5
    assert {tuple(each) for each in said["seen"]} <= allowed
    assert len(said["seen"]) > 2


def child_of(checkout: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process, which has said that it begins."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    if child.stdout.readline() != "begun\n":
        raise AssertionError(child.communicate()[1])
    return child


# without torch, which takes seconds to import: of vectors that stand for another model's
WRITER = """
import os, signal, sys
import numpy as np
from assets.params import read_params
from assets.pictures.table import read_rows
from assets.search_table import versions, writing

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def second(batches, *_):
    yield next(batches)
    die()

def wait(*_):
    print("writing", flush=True)
    sys.stdin.readline()

digest, point = sys.argv[1:]
if point:
    module, name = point.split(".")
    setattr({"versions": versions, "writing": writing}[module], name, {"track": second, "_check": wait}.get(name, die))
ids = read_rows(writing.artifacts.CURATED_IMAGES, columns=["id"])["id"].to_pylist()
print("begun", flush=True)
writing.write_table(np.eye(len(ids), 96, dtype=np.float32), ids, {}, "mcip_rea", digest * 64, read_params()[0].search_table)
"""
BEFORE_IT_SHOWS = ["writing.track", "writing._indexed", "versions.show"]
AFTER = ["versions.set_tag", "versions.record", "versions.prune"]


def killed(point: str, checkout: Path) -> None:
    child = child_of(checkout, WRITER, "f", point)
    _, err = child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL, err


def no_encoding(*_: Any, **__: Any) -> None:
    raise AssertionError("finished embeddings were made again")


@pytest.mark.parametrize("point", [*BEFORE_IT_SHOWS, "versions.set_tag"])
def test_a_first_publish_that_is_killed(point: str, unpublished: Path, settings_with: Settings, checkout: Path) -> None:
    """A table that was listed and did not open, or files that nobody ever removed."""
    killed(point, checkout)
    assert not STATE.exists()
    if point in BEFORE_IT_SHOWS:
        with pytest.raises(UserError, match=r"no table 'images'.*dvc repro"):
            open_table()
    publish(settings_with(), RECIPE)
    assert [row["id"] for row in table_rows()] == sorted(row["id"] for row in curated_rows())
    assert len(data_files()) == (1 if point in BEFORE_IT_SHOWS else 2)
    assert not [path.name for path in artifacts.LANCEDB.iterdir() if ".tmp" in path.name]


@pytest.mark.parametrize("point", [*BEFORE_IT_SHOWS, *AFTER])
def test_a_publish_that_is_killed_at_a_known_point(
    point: str, unpublished: Path, settings_with: Settings, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill left half a table, files for ever, or a state in which dvc took the new table for the old one."""
    publish(settings_with(), RECIPE)
    before, ended = visible(), told()
    killed(point, checkout)
    shown = point in AFTER
    assert (visible().number > before.number) == shown
    assert len(open_table().to_arrow()) == 26
    assert (STATE.exists() and told() == ended) != shown, "a changed table must not pass for the old one"
    monkeypatch.setattr("assets.clip.encoder.encode_images", no_encoding)
    publish(settings_with(), RECIPE)
    assert told() == ended
    assert {row["model"] for row in table_rows()} == {before.model}
    assert tags()["candidate"] == tags()[visible().publish or ""] == visible().number
    assert len(data_files()) == (2 if shown else 1)
    assert not list((TABLE / "_versions").glob("d*"))


def test_publishes_that_are_killed_at_random_moments(rows: Rows, settings_with: Settings, checkout: Path) -> None:
    """A moment that nobody thought of left readers without a whole version."""
    moments = random.Random(0)
    states = [rows, a_few_changed(rows), curated_rows(per_class=12)]
    child = child_of(checkout, WRITER, "0", "")
    begun = time.monotonic()
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    whole = time.monotonic() - begun
    allowed = {tuple(sorted(row["id"] for row in rows))}
    for number in range(8):
        write_curated(states[number % 3])
        allowed.add(tuple(sorted(row["id"] for row in states[number % 3])))
        child = child_of(checkout, WRITER, str(number // 3), "")  # every third time by another model
        time.sleep(moments.uniform(0, 1.1) * whole)
        child.kill()
        child.communicate()
        found = table_rows()
        assert tuple(row["id"] for row in found) in allowed
        assert len({row["model"] for row in found}) == 1
        assert open_table().search("dusk", query_type="fts", fts_columns=["captions"]).limit(9).to_arrow()["id"].to_pylist() == ["b.png"]
    publish(settings_with(), RECIPE)
    ended = told()
    assert [row["id"] for row in table_rows()] == sorted(row["id"] for row in states[number % 3])
    shutil.rmtree(artifacts.LANCEDB)
    publish(settings_with(), RECIPE)
    assert told() == ended


def test_of_two_publishers_one_wins_and_the_other_is_told(rows: Rows, settings_with: Settings, checkout: Path) -> None:
    """The second cleared away what the first was still writing."""
    write_curated(curated_rows(per_class=5))
    child = child_of(checkout, WRITER, "f", "writing._check")
    assert child.stdout is not None and child.stdout.readline() == "writing\n"
    with pytest.raises(UserError, match="another process is publishing"):
        publish(settings_with(), RECIPE)
    with pytest.raises(UserError, match="another process is publishing"):
        roll_back("publish-0001")
    assert len(table_rows()) == 82
    child.communicate("\n", timeout=60)
    assert child.returncode == 0
    assert len(table_rows()) == 22


def test_a_program_that_writes_into_the_table_meanwhile_is_not_overwritten(
    rows: Rows, settings_with: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another program had added was lost without a word."""
    real = writing._whole

    def whole(*arguments: Any) -> Any:
        staged = real(*arguments)
        open_table().delete("id = 'a.png'")
        return staged

    write_curated(curated_rows(per_class=5))
    with monkeypatch.context() as patched:
        patched.setattr(writing, "_whole", whole)
        with pytest.raises(UserError, match=r"something else has written to the table.*dvc repro --force --single-item search_table"):
            publish(settings_with(), RECIPE)
    assert len(table_rows()) == 81
    publish(settings_with(), RECIPE)
    assert len(table_rows()) == 22


def test_rollback_gives_the_earlier_answers_with_the_earlier_model(rows: Rows, settings_with: Settings) -> None:
    """After a rollback the vectors were those of one model and the queries those of another, or near answers came in another order."""

    def answers() -> list[pa.Table]:
        text = open_table().search("valentine ship", query_type="fts", fts_columns=["captions"]).limit(50).to_arrow()
        return [search("a red heart", k=50), search(rows[3]["image"], k=50), text]

    seen, manifests = [answers()], [told()]
    for step in range(2):
        retrain(0.2)
        write_curated([a_few_changed(rows), curated_rows(per_class=5)][step])
        publish(settings_with(), RECIPE)
        seen.append(answers())
        manifests.append(told())

    def is_at(number: int) -> bool:
        return all(one.equals(other) for one, other in zip(answers(), seen[number], strict=True)) and told() == manifests[number]

    assert roll_back(None).publish == "publish-0002"
    assert is_at(1)
    assert roll_back(None).publish == "publish-0001"
    assert is_at(0)
    with pytest.raises(UserError, match=r"no publish before publish-0001 is kept. There are: publish-0001, publish-0002, .*VERSION="):
        roll_back(None)
    assert roll_back("candidate").publish == "publish-0003"
    assert is_at(2)
    before = all_versions()
    assert roll_back("3").publish == "publish-0002"
    assert len(all_versions()) == len(before) + 1
    roll_back("publish-0002")
    assert len(all_versions()) == len(before) + 1, "it is visible already"
    with pytest.raises(UserError, match=r"no published version 'publish-7'. There are: publish-0001.*make versions"):
        roll_back("publish-7")
    publish(settings_with(), RECIPE)  # as `dvc repro` does next
    assert is_at(2)


def test_the_champion_s_version_is_tagged(rows: Rows, settings_with: Settings) -> None:
    """The table that the champion made could be cleaned away."""
    sha256 = artifacts.sha256_of(artifacts.model_dir(RECIPE))
    assert tag_champion("0" * 64) is None
    champion = tag_champion(sha256)
    assert champion is not None and champion.publish == "publish-0001"
    retrain(0.1)
    publish(settings_with(kept_publishes=1, kept_days=0), RECIPE)
    assert tags() == {"publish-0001": 2, "champion": 2, "publish-0002": 3, "candidate": 3}
    assert roll_back("champion").publish == "publish-0001"
    assert search("a red heart").num_rows == 10


def test_cleaning_keeps_what_is_tagged_recent_or_visible(rows: Rows, settings_with: Settings) -> None:
    """Cleaning took a tagged version, the files of one that is still read, or let every old one pile up."""
    tag_champion(artifacts.sha256_of(artifacts.model_dir(RECIPE)))
    for step in range(5):
        retrain(0.1)
        publish(settings_with(), RECIPE)
        if step == 1:
            lance.dataset(TABLE).tags.create("mine", visible().number)
    held = lancedb.connect(artifacts.LANCEDB).open_table("images")
    roll_back("publish-0004")
    numbers = [version.number for version in all_versions()]
    assert numbers == [2, 3, 4, 5, 6, 7, 8]
    dataset = open_dataset()
    assert dataset is not None
    soon = datetime.now(UTC) + timedelta(days=0.5)
    prune(dataset, 1, 1.0, now=soon)
    assert [version.number for version in all_versions()] == numbers, "a program may still read those of the last day"
    roll_back("candidate")  # so that the version of the rollback is an earlier one
    dataset = open_dataset()
    assert dataset is not None
    prune(dataset, 2, 1.0, now=soon + timedelta(days=1))
    assert tags() == {"publish-0001": 2, "champion": 2, "publish-0003": 4, "mine": 4, "publish-0005": 6, "publish-0006": 7, "candidate": 7}
    assert [version.number for version in all_versions()] == [2, 4, 6, 7, 9]
    assert len(data_files()) == 4
    assert {path.name for path in MODELS.iterdir()} == {version.model for version in all_versions()}
    for version in all_versions():
        assert lance.dataset(TABLE, version=version.number).to_table().num_rows == version.rows
    assert len(held.to_arrow()) == 82


@pytest.mark.parametrize("index_from_rows", [1, 1000])
@pytest.mark.parametrize("count", [1, 26])
def test_few_rows_without_words(count: int, index_from_rows: int, unpublished: Path, settings_with: Settings) -> None:
    """Indexes of nothing: a folder of pictures without labels and captions could not be published."""
    rows = [row | {"captions": [], "class_name": "", "label": None, "split": "library"} for row in curated_rows()[:count]]
    write_curated(rows)
    publish(settings_with(index_from_rows=index_from_rows), RECIPE)
    assert open_table().search("heart", query_type="fts", fts_columns=["captions"]).limit(9).to_arrow().num_rows == 0
    rows[0]["captions"] = ["heart"]
    write_curated(rows)
    publish(settings_with(index_from_rows=index_from_rows), RECIPE)
    found = open_table().search("heart", query_type="fts", fts_columns=["captions"]).limit(9).to_arrow()
    assert found["id"].to_pylist() == [rows[0]["id"]]
    assert search(rows[-1]["image"], k=1)["id"].to_pylist() == [rows[-1]["id"]]


def test_a_table_of_the_time_before_versions_is_gone_on_from(unpublished: Path, settings_with: Settings) -> None:
    """Whoever had published with an earlier onespace lost the table, or could not publish."""
    publish(settings_with(), RECIPE)
    rows = open_table().to_arrow()
    shutil.rmtree(artifacts.LANCEDB)
    old = lancedb.connect(artifacts.LANCEDB).create_table("images", data=rows)
    for column in ("caption", "captions"):
        old.create_index(column, config=lancedb.index.FTS())
    files = data_files()
    publish(settings_with(), RECIPE)
    assert files < data_files(), "its schema says less than today's, so the rows are written once more"
    assert tags()["publish-0001"] == visible().number
    assert len(old.to_arrow()) == 26
    with pytest.raises(UserError, match="no publish before publish-0001"):
        roll_back(None)
