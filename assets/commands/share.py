"""python -m assets.commands.share ADDRESS: copy the published table with its versions, tags and models to an address.

The address, such as s3://bucket/lancedb, then serves searches from anywhere: search.table in params.yaml, or LanceDB, DuckDB and Polars.
"""

from __future__ import annotations

import sys

from assets.errors import UserError
from assets.search_table.sharing import share


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] in ("", "-h", "--help"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(share(arguments[0].strip().rstrip("/")))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
