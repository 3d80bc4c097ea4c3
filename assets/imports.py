"""Which files of this package a module imports, directly or through others: what a result was made with. Nothing is run to find out."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# The frame around the stages. A change here cannot change what a stage makes from given settings and inputs.
FRAME = frozenset(
    {
        "assets",
        "assets.__main__",
        "assets.stages",
        "assets.recipes",
        "assets.params",
        "assets.artifacts",
        "assets.engine",
        "assets.ray_cluster",
        "assets.imports",
        "assets.errors",
        "assets.leftovers",
        "assets.machine",
        "assets.progress",
    }
)


@lru_cache(maxsize=64)
def imported_files(*modules: str) -> tuple[Path, ...]:
    """The files of `modules` (such as "assets.image_tower.stage") and of all modules of assets that they import, sorted.

    Imports inside functions count, and so do the `__init__` of every package on the way and what lies beside the modules and is no
    Python, such as templates. The modules of FRAME do not. ValueError for a module that is not there.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or module in FRAME:
            continue
        found.add(module)
        waiting += _imports_of(module)
    files = {_file_of(module) for module in found}
    beside = {file for folder in {each.parent for each in files} - {PACKAGE} for file in folder.iterdir() if _is_resource(file)}
    return tuple(sorted(files | beside))


def _imports_of(module: str) -> Iterator[str]:
    """Modules of assets that `module` imports, and the packages that hold it."""
    parts = module.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts)))
    for node in ast.walk(ast.parse(_file_of(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE.name:
            yield node.module
            yield from (name for alias in node.names if _exists(name := f"{node.module}.{alias.name}"))


def _is_resource(file: Path) -> bool:
    return file.is_file() and file.suffix not in (".py", ".pyc") and not file.name.startswith(".")


def _exists(module: str) -> bool:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _file_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        raise ValueError(f"there is no module {module} in {PACKAGE}")
    return file
