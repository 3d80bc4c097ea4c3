"""What a stage imports is what dvc watches for it, and every path is named in one module."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

from assets.stages import STAGES, Stage

# A change here cannot change what a stage makes from given settings, or it changes the layout of all data: no stage depends on it.
SHELL = {
    "assets",
    "assets.__main__",
    "assets.stages",
    "assets.params",
    "assets.artifacts",
    "assets.errors",
    "assets.memory",
    "assets.progress",
}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("assets", cache_dir=None)


def covers(code: str, module: str) -> bool:
    """Whether the path is the module's own file, or a folder that holds it."""
    file = module.replace(".", "/")
    return code in (f"{file}.py", f"{file}/__init__.py") or f"{file}/".startswith(f"{code}/")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_declared_code_is_what_the_stage_imports(stage: Stage, imports: grimp.ImportGraph):
    package = f"assets.{stage.name}"
    used = {package} | imports.find_descendants(package) | imports.find_upstream_modules(package, as_package=True)
    used |= {module.rpartition(".")[0] for module in used}  # importing a module runs its package's __init__ too
    unwatched = {module for module in used - SHELL if not any(covers(code, module) for code in stage.code)}
    assert not unwatched, f"add to {stage.name} in assets/stages.py and dvc.yaml, or a change there would not re-run it"
    unused = {code for code in stage.code if not any(covers(code, module) for module in used)}
    assert not unused, f"remove from {stage.name} in assets/stages.py and dvc.yaml: a change there re-runs it for nothing"


@pytest.mark.parametrize("code", sorted({code for stage in STAGES for code in stage.code}))
def test_declared_code_exists(code: str, checkout: Path):
    assert (checkout / code).exists()


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
