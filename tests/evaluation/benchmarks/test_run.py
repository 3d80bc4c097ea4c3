"""All benchmarks together: what is there, what is skipped and why, the paper's fourteen columns, and nothing loaded for nothing."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from assets.errors import UserError
from assets.evaluation.benchmarks.registry import BENCHMARKS
from assets.evaluation.benchmarks.run import find_benchmarks, measure_benchmarks, table_1
from assets.table_1 import COLUMNS

NAMES = [benchmark.name for benchmark in BENCHMARKS]


def test_every_replica_gives_its_column_of_table_1(replica, tools, prompted):
    for name in [*NAMES, "imagenet_train"]:
        root = replica(name)
    names = {"tench": 0, "goldfish": 80, "stingray": 340, "goldfinch": 120, "alarm clock": 0, "bench": 90}
    captions = {f"{angle}°": angle for angle in (0, 100, 30, 60, 90, 120, 150, 45)}
    encoder = tools(prompted(names) | captions).encoder
    result = measure_benchmarks(find_benchmarks(root.parent), encoder, knn_k=1, knn_temperature=0.1)
    assert list(result["benchmarks"]) == NAMES
    assert result["skipped"] == {}
    # each column is worked out in its family's test; -A: nearest training images of 0° and 90° are tenches, which it does not have
    columns = {
        "image_to_image": {"gpr1200": 92.9365, "instre": 92.9365, "cub200": 71.4286, "roxford": 88.1944},
        "knn": {"imagenet_val": 50, "imagenet_sketch": 50, "imagenet_a": 0, "fgvc_aircraft": 66.6667},
        "zero_shot": {"imagenet_val": 75, "imagenet_sketch": 75, "imagenet_a": 100, "objectnet": 66.6667},
        "text_to_image": {"flickr30k": 75, "coco": 75},
    }
    values = [value for family in columns.values() for value in family.values()]
    assert len(values) == 14
    assert result["table_1"] == columns | {"average": round(sum(values) / 14, 4)}
    assert encoder.encoded.count(80_000) == 1  # ImageNet's prompts, once for its five sets
    assert result["incomplete"]["gpr1200"] == "7 of 12000 images"
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_missing_column_leaves_the_average_out(replica, tools):
    root = replica("gpr1200").parent
    result = measure_benchmarks(find_benchmarks(root), tools({}).encoder, knn_k=1, knn_temperature=0.1)
    assert list(result["benchmarks"]) == ["gpr1200"]
    assert result["table_1"]["image_to_image"] == {"gpr1200": 92.9365, "instre": None, "cub200": None, "roxford": None}
    assert result["table_1"]["average"] is None
    assert set(result["skipped"]) == {*NAMES, "imagenet_train"} - {"gpr1200"}
    assert "Caltech Vision Lab" in result["skipped"]["cub200"]
    assert "CUB_200_2011/images.txt" in result["skipped"]["cub200"]
    assert str(root) not in json.dumps(result), "artefacts name no place of this machine"


def test_without_training_images_the_paper_s_knn_is_missing(replica, tools):
    replica("imagenet_a")
    root = replica("fgvc_aircraft").parent
    result = measure_benchmarks(find_benchmarks(root), tools({}).encoder, knn_k=1, knn_temperature=0.1)
    assert "knn_leave_one_out" in result["benchmarks"]["imagenet_a"]
    assert result["table_1"]["knn"]["imagenet_a"] is None
    assert result["table_1"]["knn"]["fgvc_aircraft"] == 66.6667  # needs none of them


def test_table_1_is_the_paper_s_fourteen():
    scores = {
        benchmark: {column.measure: float(number) for column in COLUMNS if column.benchmark == benchmark}
        for number, benchmark in enumerate(NAMES)
    }
    values = [NAMES.index(column.benchmark) for column in COLUMNS]
    assert len(values) == 14
    assert table_1(scores)["average"] == pytest.approx(np.mean(values), abs=1e-4)


def test_what_is_skipped_and_what_is_incomplete_is_told(replica, caplog):
    caplog.set_level(logging.INFO, logger="assets.evaluation")
    root = replica("sop").parent
    (root / "coco").mkdir()  # empty: not there
    (root / "cub").mkdir()
    (root / "cub" / "images.txt").touch()
    find_benchmarks(root)
    assert "benchmark coco skipped: not there; official source: MS-COCO 2014" in caplog.text
    assert "benchmark sop has 7 of 60502 images: do not compare its numbers with published ones" in caplog.text
    assert "cub is not a known benchmark; known are coco, cub200," in caplog.text


def test_a_wrong_layout_is_told_with_the_right_one(replica):
    root = replica("flickr30k")
    (root / "flickr30k-images/60.jpg").unlink()
    (root / "flickr30k-images/120.jpg").unlink()
    with pytest.raises(UserError) as raised:
        find_benchmarks(root.parent)
    told = str(raised.value)
    assert told.startswith(f"benchmark flickr30k: {root / 'flickr30k-images/60.jpg'} is missing.")
    assert "dataset_flickr30k.json and flickr30k-images/*.jpg" in told
    assert "University of Illinois" in told


@pytest.mark.parametrize("exists", [True, False])
def test_no_benchmark_costs_a_line_and_nothing_heavy(tmp_path, checkout, exists):
    if exists:
        (tmp_path / ".gitkeep").touch()
    root = tmp_path if exists else tmp_path / "none"
    script = (
        "import logging, sys; from pathlib import Path; logging.basicConfig(level=logging.INFO);"
        "from assets.evaluation.benchmarks.run import find_benchmarks, measure_benchmarks;"
        f"found = find_benchmarks(Path({str(root)!r}));"
        "result = measure_benchmarks(found, None, knn_k=1, knn_temperature=0.1);"
        "print(len(result['benchmarks']), len(result['skipped']), result['table_1']['average']);"
        "print(*sorted({'torch', 'timm', 'open_clip', 'sklearn', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=True)
    assert done.stdout == "0 16 None\n\n"
    assert len(done.stderr.splitlines()) == 1
    assert "no benchmark is in" in done.stderr


def test_the_command_lists_every_layout(checkout: Path):
    done = subprocess.run([sys.executable, "-m", "assets.evaluation.benchmarks"], cwd=checkout, capture_output=True, text=True, check=True)
    for benchmark in BENCHMARKS:
        assert f"data/benchmarks/{benchmark.name}: " in done.stdout
        assert benchmark.layout in done.stdout
        assert benchmark.source in done.stdout


def test_the_readme_lists_every_layout(checkout: Path):
    text = (checkout / "data/README.md").read_text(encoding="utf-8").partition("## Public benchmarks")[2]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[:-1] == [f"| `{each.name}` | `{each.layout}` | {each.source} |" for each in BENCHMARKS]
    assert rows[-1].startswith("| `imagenet_train` | ")


def test_a_folder_with_hidden_files_alone_is_not_there(tmp_path):
    (tmp_path / "gpr1200").mkdir()
    (tmp_path / "gpr1200" / ".DS_Store").write_bytes(b"")
    assert "gpr1200" in find_benchmarks(tmp_path).skipped
