"""python -m assets.commands.source PATH: make pictures the source in params.yaml, as `make demo SOURCE=PATH` does first.

PATH is a folder of pictures, a table, a .tar file or a folder of them, a Hugging Face dataset or a Lance table.
"""

from __future__ import annotations

import sys

from assets.errors import UserError
from assets.params import PARAMS_FILE, Emoji, read_params
from assets.profiles.overlay import as_loaded, with_values, write
from assets.source_images.recognised import recognised
from assets.source_images.root import check_source, real_path
from assets.stages import addresses


def set_source(given: str) -> list[str]:
    """Write the path into params.yaml; returns one line for each change. What was said of the same path stays."""
    params, _ = read_params()
    made = [path for stage, recipe in addresses(params).values() for path in stage.outputs(params, recipe)]
    root = real_path(given, made)
    for source in params.source_images.sources:
        if not isinstance(source, Emoji) and source.root == root:
            check_source(source)
            return []
    values = as_loaded({"source_images": {"sources": [recognised(root)]}})
    text, _, changes = with_values(values, f"{PARAMS_FILE} with {root}")
    write(text)
    return changes


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        changes = set_source(arguments[0])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    before = "" if changes else ", as before"
    for source in read_params()[0].source_images.sources:
        columns = getattr(source, "columns", None)
        read = f", columns {', '.join(f'{what}: {name}' for what, name in columns.items())}" if columns else ""
        print(f"{PARAMS_FILE}: the pictures come from {source.root} ({source.kind}{read}){before}.")
    print("`make profile NAME=demo` brings the demo back.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
