"""The whole pipeline on a tiny corpus of real picture files: `dvc repro` in a copy of the checkout, then what a user does with it.

Every stage runs as in the demo, with few pictures and single epochs, so its numbers mean nothing; what is asserted holds for any.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from assets.artifacts import sha256_of
from assets.pictures.schema import CURATED_SCHEMA
from assets.pictures.table import read_rows
from orchestration.record import read_lock
from orchestration.stage_assets import read_pipeline
from tests.tiny_project import CLASSES, FORMATS, LIBRARY, Project, copy_project

CURATED = "data/curated_images/images"


def test_nothing_is_left_to_do_and_git_sees_only_what_it_should(project):
    assert json.loads(project.dvc("status", "--json")) == project.status() == {}
    changed = {line[3:].strip('"').rstrip("/") for line in project.run("git", "status", "--porcelain").splitlines()}
    assert changed == {"dvc.lock"}


def test_a_second_repro_does_nothing(project):
    said = project.dvc("repro")
    assert "up to date" in said
    assert "Running stage" not in said


def test_every_picture_read_is_kept_or_rejected_with_a_reason(project):
    read, kept = (read_rows(project.folder / path) for path in ("data/source_images/images", CURATED))
    rejected = pq.read_table(project.folder / "data/curated_images/rejected.parquet")
    assert read.num_rows == len(CLASSES) * len(FORMATS) + len(LIBRARY) + 3
    assert sorted(read["id"].to_pylist()) == sorted(kept["id"].to_pylist() + rejected["id"].to_pylist())
    reasons = dict(zip(rejected["id"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert reasons.keys() == {"red_circle/broken.jpg", "red_circle/copy.png", "lonely/0.png"}
    assert reasons["red_circle/broken.jpg"] == "undecodable"
    assert project.json("data/curated_images/expectations.json")["success"] is True


def test_test_classes_are_never_trained_on_and_the_library_is_nobody_s(project):
    kept = read_rows(project.folder / CURATED)
    labels = {
        split: set(kept.filter(pc.equal(kept["split"], split))["label"].to_pylist()) for split in pc.unique(kept["split"]).to_pylist()
    }
    assert labels["library"] == {None}
    assert len(labels["test"]) == 2
    assert labels["test"].isdisjoint(labels["train"])
    assert labels["validation"] <= labels["train"]
    assert labels["train"] | labels["test"] == set(CLASSES)
    assert set(kept.filter(pc.equal(kept["split"], "library"))["id"].to_pylist()) == set(LIBRARY)


def test_a_row_of_percentages_for_each_measured_recipe(project):
    rows = project.json("data/promotion/metrics.json")["rows"]
    assert [row["recipe"] for row in rows] == project.settings().recipes.measured
    for row in rows:
        scored = [
            row["image_to_image"]["map"],
            row["image_to_image"]["recall_at_1"],
            row["knn"]["accuracy"],
            row["zero_shot"]["accuracy"],
            row["text_to_image"]["recall_at_5"],
        ]
        assert all(0 <= value <= 100 for value in scored)
        assert row["average"] == pytest.approx((scored[0] + scored[2] + scored[3] + scored[4]) / 4, abs=0.01)


def test_a_locked_tower_is_the_one_it_came_from(project):
    # realigning the text tower cannot move a picture, tuning the image tower cannot move a word
    def embeddings(recipe: str, kind: str) -> np.ndarray:
        return np.load(project.folder / "data" / "evaluation" / recipe / f"{kind}_embeddings.npy")

    settings = project.settings()
    kinds = {"image_tower": ("image", "text"), "text_tower": ("text", "image")}
    moved = []
    for recipe in map(settings.recipe.__getitem__, settings.recipes.measured):
        if recipe.start in settings.recipes.measured:
            tuned, locked = kinds[recipe.stage]
            np.testing.assert_allclose(embeddings(recipe.name, locked), embeddings(recipe.start, locked), atol=1e-5)
            kept = project.json(f"data/history/{recipe.name}.json")["kept"]  # so few pictures may choose the start
            moved.append(np.abs(embeddings(recipe.name, tuned) - embeddings(recipe.start, tuned)).max() > 1e-4)
            assert moved[-1] == (kept["epoch"] > 0), kept["said"]
    assert any(moved)


def test_the_report_opens_from_disk_alone(project):
    page = (project.folder / "data/report/index.html").read_text(encoding="utf-8")
    for recipe in project.settings().recipes.measured:
        assert recipe in page
    assert 'src="http' not in page
    assert list((project.folder / "data/report/plots").glob("*.png"))
    assert project.json("data/promotion/verdict.json")["decision"] == "publish"


def test_dvc_shows_metrics_and_plots(project, tmp_path):
    shown = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]
    settings = project.settings()
    assert set(shown) == {"data/promotion/metrics.json", *(f"data/evaluation/{name}/metrics.json" for name in settings.recipes.measured)}
    project.dvc("plots", "show", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for recipe in settings.recipe.keys() - {"base"}:
        assert f"history_{recipe}_json" in page


def test_the_table_holds_each_curated_picture_once(project):
    kept = pa.concat_tables(pq.read_table(shard) for shard in sorted((project.folder / CURATED).glob("*.parquet")))
    table = project.table()
    assert sorted(table["id"].to_pylist()) == sorted(kept["id"].to_pylist())
    vectors = np.array(table["vector"].to_pylist(), dtype=np.float64)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert dict(zip(table["id"].to_pylist(), table["image"].to_pylist(), strict=True)) == dict(
        zip(kept["id"].to_pylist(), kept["image"].to_pylist(), strict=True)
    )


def test_search_by_words_by_picture_and_with_a_filter(project):
    found = json.loads(
        project.python(
            "import json, pathlib; from PIL import Image; from assets.search_table import search\n"
            "words = search('a red circle', k=5)\n"
            "path = pathlib.Path('data/images/blue_square/0.png')\n"
            "picture, opened = search(path, k=3), search(Image.open(path), k=1)\n"
            "library = search('a red circle', k=10, where=\"split = 'library'\")\n"
            "print(json.dumps([t.select(['id', '_distance']).to_pylist() for t in (words, picture, opened, library)]))"
        ).splitlines()[-1]
    )
    words, picture, opened, library = found
    assert len(words) == 5
    distances = [hit["_distance"] for hit in words]
    assert distances == sorted(distances)
    assert all(math.isfinite(each) for each in distances)
    assert picture[0]["id"] == opened[0]["id"] == "blue_square/0.png"
    assert picture[0]["_distance"] == pytest.approx(0, abs=1e-4)
    assert {hit["id"] for hit in library} == set(LIBRARY)


def test_search_from_the_shell(project):
    said = project.run(sys.executable, "-m", "assets.search_table", "a blue square", "-k", "3")
    assert len([line for line in said.splitlines() if line.strip()]) == 4  # a heading and three hits


def test_the_published_model_loads_elsewhere_offline_and_gives_the_table_s_vectors(project, tmp_path):
    table = project.table()
    script = (
        f"import io, json, sys; sys.path.insert(0, {str(project.folder)!r})\n"
        "import pyarrow.parquet as pq, torch; from PIL import Image; from assets.clip import load_clip\n"
        f"rows = pq.read_table({str(project.folder / CURATED / '00000.parquet')!r}).slice(0, 5)\n"
        f"model, preprocess, tokenizer = load_clip({str(project.folder / 'data/models/mcip_rea')!r})\n"
        "pictures = torch.stack([preprocess(Image.open(io.BytesIO(each)).convert('RGB')) for each in rows['image'].to_pylist()])\n"
        "with torch.inference_mode(): vectors = model.encode_image(pictures, normalize=True)\n"
        "print(json.dumps(dict(zip(rows['id'].to_pylist(), vectors.tolist()))))"
    )
    elsewhere = json.loads(project.python(script, cwd=tmp_path).splitlines()[-1])
    stored = dict(zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    for each, vector in elsewhere.items():
        assert float(np.dot(vector, stored[each])) >= 0.9999


def test_models_are_chosen_without_test_data(project, tmp_path):
    # every test picture another one, its words others, half of the rows gone: what is trained and chosen is the same to the bit
    for name in ("assets", "params.yaml"):
        source = project.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    path = f"{CURATED}/00000.parquet"  # the one shard of so few pictures
    rows = pq.read_table(project.folder / path).to_pylist()
    test = [row for row in rows if row["split"] == "test"]
    kept = [row for row in rows if row["split"] != "test" or int(row["sha256"], 16) % 2]
    assert 0 < len(rows) - len(kept) < len(test)
    chance = np.random.default_rng(0)
    for row in kept:
        if row["split"] == "test":
            noise = io.BytesIO()
            Image.fromarray(chance.integers(256, size=(20, 20, 3), dtype=np.uint8)).save(noise, "PNG")
            row |= {"image": noise.getvalue(), "captions": ["red thing", "of no use"], "class_name": "red circle", "label": "scrambled"}
            row |= {"width": 20, "height": 20}
    (tmp_path / path).parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(kept, schema=CURATED_SCHEMA), tmp_path / path)

    stages = ["base_clip", "pseudo_captions", "training_captions@mcip", "image_tower@mcip", "text_tower@mcip_rea"]
    script = f"from assets.__main__ import main\nfor stage in {stages}: assert main([stage]) == 0, stage"
    project.python(script, cwd=tmp_path)
    for recipe in ("base", "mcip", "mcip_rea"):
        trained, again = (folder / "data" / "models" / recipe for folder in (project.folder, tmp_path))
        files = sorted(file.relative_to(trained) for file in trained.rglob("*") if file.is_file())
        assert files == sorted(file.relative_to(again) for file in again.rglob("*") if file.is_file())
        assert any(file.suffix == ".safetensors" for file in files)
        for file in files:
            if file.name == "model_card.json":  # its inputs are other files, its validation is not another
                cards = [json.loads((folder / file).read_text(encoding="utf-8")) for folder in (trained, again)]
                assert cards[0]["inputs"] != cards[1]["inputs"]
                # which words the base reads is told of all words, the test pictures' too, and chooses nothing
                assert len({json.dumps(card | {"inputs": None, "readable": None}) for card in cards}) == 1
            else:
                assert (trained / file).read_bytes() == (again / file).read_bytes(), f"{recipe}: {file}"
        if recipe != "base":
            history = f"data/history/{recipe}.json"
            assert (tmp_path / history).read_bytes() == (project.folder / history).read_bytes()


def test_seed_0_is_the_run_that_is_there(project):
    # its stages are taken from dvc's cache: the copy that `make seeds` makes for a seed has the same code, settings and data
    script = (
        "from pathlib import Path; from assets.params import read_params; from orchestration.stage_assets import read_pipeline\n"
        "from orchestration.seeds.copies import prepare, repeated; from orchestration.seeds.runs import Runs\n"
        "_, written = read_params(); again = repeated(read_pipeline(Path.cwd())); workspace = Path('.cache/seeds/0')\n"
        "prepare(workspace, 0, again, written, str(Path('.dvc/cache').resolve()))\n"
        "assert Runs(None).repro(workspace, 0, again.targets)"
    )
    project.python(script)
    log = (project.folder / ".cache/seeds/0/log.txt").read_text(encoding="utf-8")
    assert "Running stage" not in log
    stages = read_pipeline(project.folder / ".cache/seeds/0")
    addresses = {stage.address for stage in stages}
    unmeasured = {"training_captions@gpr", "image_tower@gpr"}  # no evaluation of a seed needs them
    assert unmeasured < addresses
    assert log.count("is cached - skipping run") == len(addresses - unmeasured)
    assert "evaluation" in {address.partition("@")[0] for address in addresses}
    for recipe in project.settings().recipes.measured:
        path = f"data/evaluation/{recipe}/metrics.json"
        assert project.json(f".cache/seeds/0/{path}") == project.json(path)
    assert project.status() == {}


def test_one_value_of_text_tower_makes_what_follows_it_stale_and_nothing_else(project):
    before = (project.folder / "params.yaml").read_text(encoding="utf-8")
    try:
        project.change("text_tower", weight_decay=0.02)
        assert set(project.status()) == {"text_tower@mcip_rea", "text_tower@onespace"}
        assert project.would_run() == {
            "text_tower@mcip_rea",
            "text_tower@onespace",
            "evaluation@mcip_rea",
            "evaluation@onespace",
            "promotion",
            "report",
            "search_table",
            "export",
        }
    finally:
        (project.folder / "params.yaml").write_text(before, encoding="utf-8")
    assert project.status() == {}


def test_a_deleted_table_is_missed_and_made_again(project):
    before = project.table().sort_by("id")
    shutil.rmtree(project.folder / "data/lancedb")
    assert set(project.status()) == {"search_table"}
    said = project.dvc("repro")
    assert said.count("Running stage") == 1
    assert project.table().sort_by("id").equals(before)
    assert project.status() == {}


def test_an_old_revision_gets_its_own_lock_and_table_back(project):
    """dvc.lock held a hash of the table's files, which differ between equal tables."""
    settings, lock, before = project.folder / "params.yaml", project.folder / "dvc.lock", project.table().sort_by("id")
    written, recorded = settings.read_text(encoding="utf-8"), lock.read_text(encoding="utf-8")
    try:
        project.change("promotion", recipe="onespace", override_reason="another model")
        assert "search_table" in project.repro("search_table")
        assert not project.table().sort_by("id").equals(before)
        assert lock.read_text(encoding="utf-8") != recorded
        project.run(sys.executable, "-m", "assets.commands.rollback")
        assert project.table().sort_by("id").equals(before)
        assert "search_table" in project.status(), "after a rollback the table is not what dvc.lock says"
    finally:
        settings.write_text(written, encoding="utf-8")
        project.repro()
    assert lock.read_text(encoding="utf-8") == recorded
    assert project.table().sort_by("id").equals(before)
    assert project.status() == {}


def test_an_empty_source_is_reported_and_leaves_the_table_alone(project):
    before = (project.folder / "params.yaml").read_text(encoding="utf-8")
    rows = project.table().num_rows
    (project.folder / "nothing").mkdir()
    try:
        project.change(
            "source_images", sources=[{"kind": "image_folder", "root": "nothing", "folders": ["label"], "license": "", "attribution": ""}]
        )
        said = project.dvc("repro", code=255)
        assert "nothing holds no pictures" in said
        assert "Traceback" not in said
        assert project.table().num_rows == rows
    finally:
        (project.folder / "params.yaml").write_text(before, encoding="utf-8")
        (project.folder / "nothing").rmdir()
    assert "Running stage 'curated_images'" not in project.dvc("repro")
    assert project.status() == {}


def test_a_new_row_is_trained_measured_and_shown_and_removed_again_leaves_no_trace(project, tmp_path):
    own = Project(tmp_path / "a checkout", home=tmp_path / "site")
    copy_project(project.folder, own.folder)
    own.git("add", "--all")
    own.git("commit", "-q", "-m", "made")
    before, lock = (own.folder / "params.yaml").read_bytes(), stages_of(own)
    files = made_files(own)

    rows = own.settings().recipes.model_dump()
    rows["image_tower"]["wide"] = {"from": "base", "margin": 0.3, "about": "class labels with a wider margin"}
    rows["text_tower"]["x"] = {"from": "wide", "about": "wide, then the text tower realigned"}
    rows["measured"] += ["wide", "x"]
    own.change("recipes", **rows)
    new = {"training_captions@wide", "image_tower@wide", "text_tower@x", "evaluation@wide", "evaluation@x"}
    assert new <= {stage.address for stage in read_pipeline(own.folder)}
    assert own.repro() - {"search_table"} == new | {"promotion", "report"}  # the table is published anew where the verdict says otherwise
    assert own.status() == {}
    assert [row["recipe"] for row in own.json("data/promotion/metrics.json")["rows"]] == rows["measured"]
    page = (own.folder / "data/report/index.html").read_text(encoding="utf-8")
    assert "class labels with a wider margin" in page and "wide, then the text tower realigned" in page
    card = own.json("data/models/x/model_card.json")
    assert [each["recipe"] for each in card["made_from"]] == ["base", "wide"]
    assert card["made_from"][1]["params"]["margin"] == 0.3
    listed = own.python(
        "from orchestration.definitions import defs\n"
        "print(*(key.to_user_string() for key in defs.resolve_asset_graph().materializable_asset_keys))"
    ).split()
    assert {address.replace("@", "/") for address in new} <= set(listed)
    assert {line[3:] for line in own.git("status", "--porcelain").splitlines()} == {"params.yaml", "dvc.lock"}

    (own.folder / "params.yaml").write_bytes(before)
    assert own.repro() <= {"promotion", "report", "search_table"}
    assert own.status() == {}
    assert made_files(own) == files
    # dvc forgets no stage: the lock keeps entries of what dvc.yaml no longer has, and nothing reads them
    assert {name: entry for name, entry in stages_of(own).items() if name not in new} == lock
    own.git("checkout", "--quiet", "dvc.lock")
    assert own.git("status", "--porcelain") == ""
    assert own.status() == {}


def stages_of(project: Project) -> dict[str, Any]:
    return read_lock(project.folder / "dvc.lock")


def made_files(project: Project) -> dict[str, str]:
    """Hashes of what the stages made, but for the table, whose files differ between identical builds."""
    data = project.folder / "data"
    files = [path for path in sorted(data.rglob("*")) if path.is_file() and not path.is_relative_to(data / "lancedb")]
    return {str(path.relative_to(data)): sha256_of(path) for path in files if "search_table" not in path.parts}
