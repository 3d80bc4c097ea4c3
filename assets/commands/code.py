"""python -m assets.commands.code [--check]: write into dvc.yaml which files of assets each stage imports, or fail where they differ.

What else a stage depends on stands in dvc.yaml as people wrote it, and in assets/stages.py.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from pathlib import Path

from ruamel.yaml import YAML

from assets import artifacts
from assets.errors import UserError
from assets.imports import PACKAGE, imported_files
from assets.stages import STAGES

PIPELINE = Path("dvc.yaml")


def code_of(stage: str) -> list[str]:
    """The paths that dvc watches as a stage's code: files, or a folder where the stage imports all that it holds."""
    return [path.relative_to(PACKAGE.parent).as_posix() for path in _folded(imported_files(f"{PACKAGE.name}.{stage}.stage"))]


def _folded(files: Iterable[Path]) -> list[Path]:
    found = set(files)
    for folder in sorted({each.parent for each in found} - {PACKAGE}):
        held = {each for each in folder.rglob("*") if each.is_file() and "__pycache__" not in each.parts and not each.name.startswith(".")}
        if held <= found:
            found = (found - held) | {folder}
    return sorted(found)


def with_code(text: str) -> str:
    """dvc.yaml with each stage's code in place of what it lists of assets; all else stays as it is, comments too."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10_000, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(text)
    for stage in STAGES:
        entry = pipeline["stages"][stage.name]
        dependencies = entry.get("do", entry)["deps"]
        others = [each for each in dependencies if not str(each).startswith(f"{PACKAGE.name}/")]
        dependencies[:] = [*code_of(stage.name), *others]
    written = io.StringIO()
    yaml.dump(pipeline, written)
    return written.getvalue()


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = PIPELINE.read_text(encoding="utf-8")
    wanted = with_code(text)
    try:
        if arguments and wanted != text:
            raise UserError(f"{PIPELINE} does not list exactly the files that the stages import. `make code` writes it.")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted != text:
        with artifacts.replacing(PIPELINE) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
        print(f"{PIPELINE}: code written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
