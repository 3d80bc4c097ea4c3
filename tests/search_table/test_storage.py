"""Vectors stored in fewer bytes, and kinds of index: what is lost and saved is measured, kept with the version, and gated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assets import artifacts
from assets.commands import versions as command
from assets.errors import UserError
from assets.params import SearchTable
from assets.search_table import open_table, search
from assets.search_table.stage import publish
from assets.search_table.storage import K, check, index_settings, measure
from assets.search_table.table import open_version
from assets.search_table.versions import open_dataset, read_versions, roll_back
from tests.search_table.conftest import RECIPE, curated_rows, write_curated

WAYS = [
    ("float32", None),
    ("float16", None),
    ("float16", "IVF_SQ"),
    ("float16", "IVF_PQ"),
    ("float32", "IVF_RQ"),
    ("float32", "IVF_HNSW_SQ"),
]


def test_each_way_of_storing_finds_and_tells_what_it_costs(
    unpublished: Path, settings_with: Callable[..., SearchTable], capsys: pytest.CaptureFixture[str]
) -> None:
    """A setting changed nothing, float16 vectors were searched as bytes, or a rollback forgot what had been measured."""
    rows = curated_rows(per_class=80)
    write_curated(rows)
    manifests = {}
    for floats, index in WAYS:
        changes = {"vectors": floats, "min_recall": 0.0, "batch_size": 64} | ({"index": index, "index_from_rows": 1} if index else {})
        publish(settings_with(**changes), RECIPE)
        manifest = artifacts.read_json(artifacts.TABLE_MANIFEST)
        assert manifest["indexes"].get("vector") == index
        assert "recall_at_10" not in str(manifest), "dvc hashes the manifest, and a measurement differs from run to run"
        assert ("halffloat" in manifest["columns"]["vector"]) == (floats == "float16")
        manifests[(floats, index)] = manifest
        for row in rows[:: len(rows) // 3]:
            hit = search(row["image"], k=1)
            assert (hit["id"][0].as_py(), hit["_distance"][0].as_py()) == (row["id"], pytest.approx(0, abs=1e-3))
        assert search("a red heart", k=5, by="hybrid", cutoff=-1.0, fold=True).num_rows
        assert search(like=rows[0]["id"], k=3).num_rows == 3
    dataset = open_dataset()
    assert dataset is not None
    told = [version.measured for version in read_versions(dataset)]
    assert [each["vector_bytes"] for each in told] == [322 * 16 * (2 if floats == "float16" else 4) for floats, _ in WAYS]
    assert [each["index_bytes"] > 0 for each in told] == [index is not None for _, index in WAYS]
    assert ["recall_at_10" in each for each in told] == [False, True, True, True, True, True]
    assert min(told[number]["recall_at_10"] for number in (1, 2, 5)) > 0.97
    roll_back("publish-0002")
    dataset = open_dataset()
    assert dataset is not None and read_versions(dataset)[-1].measured == told[1]
    assert command.main() == 0
    line = next(each for each in capsys.readouterr().out.splitlines() if "← visible" in each)
    assert "float16, no index" in line


def test_recall_is_measured_against_exact_float32_search(published: Path) -> None:
    """Recall was measured against the index itself, or counted an equal picture as a miss."""
    rows = open_table().to_arrow().sort_by("id")
    vectors, ids = np.stack(rows["vector"].to_numpy()), rows["id"].to_pylist()
    stored = np.ones(len(ids), bool)
    shuffled = np.random.default_rng(0).permutation(vectors)
    from assets.search_table import storage

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storage, "has_vector_index", lambda _: True)
        assert measure(open_version(), vectors, stored, ids, 10)["recall_at_10"] == 1
        lost = measure(open_version(), shuffled, stored, ids, 10)
    assert lost["recall_at_10"] < 0.9
    with pytest.raises(UserError, match=r"finds .* % of the ten nearest, and search_table\.min_recall asks for 95\.0 %"):
        check(lost, 0.95)
    assert K == 10
    assert [index_settings("IVF_PQ", dimension) for dimension in (512, 20, 7)] == [{"num_sub_vectors": count} for count in (64, 5, 7)]
