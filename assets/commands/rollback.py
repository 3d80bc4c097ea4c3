"""python -m assets.commands.rollback [VERSION]: make an earlier publish of the table the visible one again.

VERSION is a tag (publish-0007, champion, candidate) or a number, as `make versions` lists them; without it, the publish before the
visible one.
"""

from __future__ import annotations

import sys

from assets import artifacts
from assets.errors import UserError
from assets.search_table.versions import Version, roll_back


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0 if len(arguments) == 1 else 2
    try:
        version = roll_back((arguments[0].strip() or None) if arguments else None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(said_of(version))
    return 0


def said_of(version: Version) -> str:
    return (
        f"{artifacts.LANCEDB} shows {version.publish} again: {version.rows:,} rows, model {version.model}.\n"
        "The next `make demo`, `dvc repro` or Dagster job `publish` brings the table up to date with params.yaml again. To stay with this"
        " version, go back to the git revision that made it, or correct the pictures or the settings first."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
