"""python -m assets.commands.code: write into dvc.yaml which files of assets each stage imports, and which paths the sources name.

What lies at addresses that the sources name is noted in data/addresses.json, so that dvc sees what changes there.

--check: fail where dvc.yaml differs. --sources: write what concerns the sources alone, as `make demo` does first.

What else a stage depends on stands in dvc.yaml as people wrote it, and in assets/stages.py.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from assets import artifacts
from assets.errors import UserError
from assets.imports import PACKAGE, imported_files
from assets.params import read_params
from assets.source_images.watched import PIPELINE, addresses_of, is_watched, note_addresses, noted, watched
from assets.stages import STAGES


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

    def edit(pipeline: Any) -> None:
        for stage in STAGES:
            entry = pipeline["stages"][stage.name]
            dependencies = entry.get("do", entry)["deps"]
            others = [each for each in dependencies if not str(each).startswith(f"{PACKAGE.name}/")]
            dependencies[:] = [*code_of(stage.name), *others]

    return _edited(text, edit)


def _edited(text: str, edit: Callable[[Any], None]) -> str:
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10_000, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(text)
    edit(pipeline)
    written = io.StringIO()
    yaml.dump(pipeline, written)
    return written.getvalue()


def with_sources(text: str, sources: Sequence[Any]) -> str:
    """dvc.yaml with the paths of these sources as what source_images depends on besides its code."""
    return _edited(text, lambda pipeline: _watch(pipeline["stages"]["source_images"]["deps"], sources))


def _watch(dependencies: list[str], sources: Sequence[Any]) -> None:
    others = [each for each in dependencies if not is_watched(str(each))]
    wanted = list(watched(sources).values())
    if [each for each in dependencies if is_watched(str(each))] != wanted:
        dependencies[:] = [*others, *wanted]


def _note(sources: Sequence[Any]) -> None:
    """Where a store cannot be asked, what was noted before serves: a clone may have what was read from there, and no credentials."""
    try:
        for line in note_addresses(sources):
            print(f"{artifacts.ADDRESSES}: {line}")
    except UserError as error:
        if set(addresses_of(sources)) - noted().keys():
            raise
        print(f"note: {error} Going on with what {artifacts.ADDRESSES} says of it.", file=sys.stderr)


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"], ["--sources"]):
        print(__doc__, file=sys.stderr)
        return 2
    text = PIPELINE.read_text(encoding="utf-8")
    try:
        sources = read_params()[0].source_images.sources
        wanted = with_sources(text, sources)
        wanted = wanted if arguments == ["--sources"] else with_code(wanted)
        if arguments == ["--check"] and wanted != text:
            raise UserError(
                f"{PIPELINE} does not list exactly the files that the stages import and the sources name. `make code` writes it."
            )
        if arguments != ["--check"]:
            _note(sources)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if wanted != text:
        with artifacts.replacing(PIPELINE) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
        print(f"{PIPELINE}: {'paths of the sources' if arguments else 'code and paths of the sources'} written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
