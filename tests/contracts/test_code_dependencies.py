"""dvc watches the files that a stage imports, and no others; every path of data is named in one module."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

from assets.commands.code import code_of, with_code
from assets.imports import FRAME, PACKAGE, imported_files
from assets.stages import STAGES, Stage


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("assets", cache_dir=None)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_imports_are_found_as_grimp_finds_them(stage: Stage, graph: grimp.ImportGraph):
    """A walker that missed an import would leave a changed file unnoticed by dvc."""
    start = f"assets.{stage.name}.stage"
    used, waiting = set(), {start}
    while waiting:
        used |= waiting
        packages = {parent for module in waiting for parent in parents(module)}
        direct = {found for module in waiting for found in graph.find_modules_directly_imported_by(module)}
        waiting = ((direct | packages) & graph.modules) - used - FRAME
    found = {file for file in imported_files(start) if file.suffix == ".py"}
    assert found == {file_of(module) for module in used}


def parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def file_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def test_dvc_yaml_lists_what_the_stages_import(checkout: Path):
    text = (checkout / "dvc.yaml").read_text(encoding="utf-8")
    assert with_code(text) == text, "`make code` writes it"


def test_a_folder_stands_for_its_files_only_where_all_are_imported():
    report = code_of("report")
    assert "assets/report" in report, "its templates count as well"
    assert "assets/metrics" not in code_of("image_tower"), "training uses some of the measures"
    assert not any(path.startswith("assets/report") for stage in STAGES if stage.name != "report" for path in code_of(stage.name))


def test_training_does_not_depend_on_what_only_evaluation_uses():
    for stage in ("base_clip", "image_tower", "text_tower"):
        assert not {"assets/metrics/knn.py", "assets/metrics/bootstrap.py", "assets/metrics/zero_shot.py"} & set(code_of(stage))


def test_paths_of_data_are_named_in_artifacts_alone(checkout: Path):
    literal = [
        f"{file.relative_to(checkout)}:{node.lineno}: {node.value!r}"
        for file in sorted((checkout / "assets").rglob("*.py"))
        if file.name != "artifacts.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.startswith("data/") and " " not in node.value
    ]
    assert not literal, "name it in assets/artifacts.py"
