"""python -m assets.commands.versions: list the versions of the published table, oldest first. `make rollback` goes back to one."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

from assets import artifacts
from assets.errors import UserError
from assets.search_table.versions import HOW_TO_PUBLISH, Version, open_dataset, read_versions


def list_versions() -> list[Version]:
    """UserError where there is no table."""
    dataset = open_dataset()
    if dataset is None:
        raise UserError(f"there is no table in {artifacts.LANCEDB}. {HOW_TO_PUBLISH}")
    return read_versions(dataset)


def show(versions: list[Version]) -> None:
    table = Table("version", "visible since (UTC)", "tags", "rows", "model", "recipe", "vectors", "recall@10", "MB", "", box=None)
    for version in versions:
        table.add_row(
            str(version.number),
            f"{version.time:%Y-%m-%d %H:%M:%S}",
            ", ".join(version.tags) or (f"again {version.publish}" if version.publish else "written by something else"),
            f"{version.rows:,}",
            version.model or "",
            version.manifest["recipe"] if version.manifest else "",
            *_storage(version),
            "← visible" if version.until is None else "",
        )
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:  # whoever reads a pipe wants whole lines
        console.width = console.measure(table, options=console.options.update(max_width=10_000)).maximum
    console.print(table)


def _storage(version: Version) -> tuple[str, str, str]:
    """How its vectors are stored, with which index; the share of the true ten nearest that search finds; megabytes of both."""
    if not version.manifest or not version.measured:
        return "", "", ""
    floats = "float16" if "halffloat" in version.manifest["columns"]["vector"] else "float32"
    index = version.manifest["indexes"].get("vector", "no index")
    size = (version.measured["vector_bytes"] + version.measured["index_bytes"]) / 1e6
    return f"{floats}, {index}", f"{version.measured.get('recall_at_10', 1.0):.3f}", f"{size:,.1f}"


def main() -> int:
    try:
        show(list_versions())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
