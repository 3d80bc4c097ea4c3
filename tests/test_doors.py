"""The ways into the project, with real dvc on a few pictures: a folder named on the command line, a clone, a checkout without git."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from pathlib import Path

import pytest

from assets.pictures.table import row_count
from tests.tiny_project import TINY, Project, copy_checkout, make_pictures

ODD = unicodedata.normalize("NFD", "été à la mer")  # as macOS writes it, with blanks


@pytest.fixture
def fresh(checkout: Path, tmp_path: Path) -> Project:
    folder = tmp_path / "a checkout"
    copy_checkout(checkout, folder)
    made = Project(folder, home=tmp_path / "site")
    for section, settings in TINY.items():
        if section != "source_images":
            made.change(section, **settings)
    return made


def source(project: Project, given: str, code: int = 0) -> str:
    return project.run(sys.executable, "-m", "assets.commands.source", given, code=code)


def check(project: Project, code: int = 0) -> str:
    return project.run(sys.executable, "-m", "assets", "--check", code=code).strip()


def test_a_folder_of_any_name_by_any_way_becomes_the_source_and_the_demo_comes_back(fresh: Project, tmp_path: Path):
    pictures = tmp_path / ODD
    pictures.mkdir()
    make_pictures(pictures)
    (tmp_path / "a link").symlink_to(pictures)
    before = (fresh.folder / "params.yaml").read_text(encoding="utf-8")
    fresh.environment["HOME"] = str(tmp_path)
    for given in (str(tmp_path / unicodedata.normalize("NFC", ODD)), "~/a link", "../a link/", str(pictures)):
        source(fresh, given)
        assert fresh.settings().source_images.sources[0].root == str(pictures.resolve())
    fresh.dvc("repro", "source_images")
    assert row_count(fresh.folder / "data/source_images/images") == 47
    (pictures / "red_circle" / "0.png").unlink()
    assert "source_images" in fresh.status(), "dvc watches the folder behind the link"
    assert "data/images" not in source(fresh, str(pictures))
    fresh.run(sys.executable, "-m", "assets.profiles", "use", "demo")
    assert fresh.settings().source_images.sources[0].kind == "emoji"
    fresh.run(sys.executable, "-m", "assets.profiles", "use", "demo")
    assert before.count("\n\n") == (fresh.folder / "params.yaml").read_text(encoding="utf-8").count("\n\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("data/image", "data/image is missing. Did you mean data/images?"),
        ("params.yaml", "is not a folder"),
        ("data/images", "data/images holds no pictures"),
        ("data", "where onespace itself keeps what it makes"),
        (".", "where onespace itself keeps what it makes"),
        ("assets/report", "where onespace itself keeps what it makes"),
    ],
)
def test_a_folder_that_cannot_be_the_source_is_refused_and_nothing_is_written(given: str, said: str, fresh: Project):
    before = (fresh.folder / "params.yaml").read_bytes()
    assert said in source(fresh, given, code=1).replace(f"{fresh.folder}/", "")
    assert (fresh.folder / "params.yaml").read_bytes() == before


def test_a_root_that_is_missing_is_named_before_anything_runs(fresh: Project):
    for root, said in (
        ("~/pictures", "dvc does not know what ~ stands for"),
        ("data/imges", "is missing. Did you mean data/images?"),
        ("data/images", "holds no pictures"),
    ):
        fresh.change(
            "source_images",
            sources=[{"kind": "image_folder", "root": root, "folders": ["label"], "license": "unknown", "attribution": "unknown"}],
        )
        told = check(fresh, code=1)
        assert said in told
        assert "`dvc pull`" in told


def test_a_clone_without_the_pictures_keeps_their_table_and_goes_on_from_it(fresh: Project, tmp_path: Path):
    """`dvc repro` ran source_images on the empty folder, failed, and had removed the table that was pulled."""
    make_pictures(fresh.folder / "data/images")
    fresh.change("source_images", **TINY["source_images"])
    fresh.dvc("repro", "curated_images")
    fresh.dvc("remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    fresh.git("add", "--all")
    fresh.git("commit", "-q", "-m", "made")
    fresh.dvc("push", "-q", "curated_images", "source_images")
    clone = Project(tmp_path / "clone", home=tmp_path / "site of the clone")
    fresh.git("clone", "-q", ".", str(clone.folder))
    assert "`dvc checkout` restores it" in check(clone, code=1)
    clone.dvc("pull", "-q", "source_images", "curated_images")
    assert check(clone) == "--downstream curated_images"

    clone.dvc("repro", "curated_images", code=255)
    assert row_count(clone.folder / "data/source_images/images") == 47, "nothing that was pulled is lost"
    clone.change("curated_images", seed=1)
    told = clone.dvc("repro", "--dry", *check(clone).split(), code=255)  # a dry run stops at models that no stage has made
    assert re.findall(r"Running stage '([^']+)'", told)[:2] == ["curated_images", "base_clip"]
    other = [{"kind": "image_folder", "root": "data/gone", "folders": ["label"], "license": "unknown", "attribution": "unknown"}]
    clone.change("source_images", sources=other)
    assert "data/gone is missing" in check(clone, code=1), "the table is of other pictures"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_dvc_works_in_a_checkout_without_git_and_with_git_again(fresh: Project, checkout: Path):
    (fresh.folder / ".venv").symlink_to(checkout / ".venv")
    shutil.rmtree(fresh.folder / ".git")
    assert "not a git repository" in fresh.dvc("status", code=255)
    fresh.run("make", "-s", "-o", ".venv/installed", "scm")
    fresh.dvc("status")
    fresh.run("git", "init", "-q")
    fresh.run("make", "-s", "-o", ".venv/installed", "scm")
    assert "no_scm" not in (fresh.folder / ".dvc/config.local").read_text(encoding="utf-8")


def test_what_changes_in_any_of_several_sources_is_noticed(fresh: Project):
    """dvc watched the first source alone: pictures added to the second changed nothing, «up to date»."""
    make_pictures(fresh.folder / "data/images")
    shop = fresh.folder / "shop"
    (shop / "files").mkdir(parents=True)
    drawn = (fresh.folder / "data/images/red_circle/0.png").read_bytes()
    (shop / "files/1.png").write_bytes(drawn)
    (shop / "table.csv").write_text("path;label\n1.png;circle\n2.png;circle\n", encoding="utf-8")
    credit = {"license": "unknown", "attribution": "unknown"}
    table = {"kind": "table", "root": "shop/table.csv", "pictures": "shop/files", "columns": {"image": "path", "label": "label"}}
    folder = {"kind": "image_folder", "root": "data/images", "folders": ["label"]}
    fresh.change("source_images", sources=[credit | folder | {"name": "mine"}, credit | table | {"name": "shop"}])
    assert "`make code` writes into it what the sources name" in check(fresh, code=1)
    assert "`make code` writes into it" in fresh.dvc("repro", "source_images", code=255), "it does not run with half of its inputs watched"
    fresh.run(sys.executable, "-m", "assets.commands.code", "--sources")
    assert check(fresh) == ""
    fresh.dvc("repro", "source_images")
    assert row_count(fresh.folder / "data/source_images/images") == 49
    assert "source_images" not in fresh.status()
    (shop / "files/2.png").write_bytes(drawn)
    assert "source_images" in fresh.status(), "a picture that the table names"
    fresh.dvc("repro", "source_images")
    (shop / "table.csv").write_text("path;label\n1.png;circle\n", encoding="utf-8")
    assert "source_images" in fresh.status(), "the table itself"
    fresh.run(sys.executable, "-m", "assets.profiles", "use", "demo")
    fresh.run(sys.executable, "-m", "assets.commands.code", "--sources")
    fresh.status()
