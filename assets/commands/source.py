"""python -m assets.commands.source FOLDER: make a folder of pictures the source in params.yaml, as `make demo SOURCE=FOLDER` does first."""

from __future__ import annotations

import sys

from assets.errors import UserError
from assets.params import PARAMS_FILE, ImageFolder, read_params
from assets.profiles.overlay import as_loaded, with_values, write
from assets.source_images.root import check_root, real_folder
from assets.stages import addresses

UNSAID = {"folders": ["label"], "license": "unknown", "attribution": "unknown"}


def set_source(given: str) -> list[str]:
    """Write the folder into params.yaml; returns one line for each change. What was said of the same folder stays."""
    params, _ = read_params()
    made = [path for stage, recipe in addresses(params).values() for path in stage.outputs(params, recipe)]
    root = real_folder(given, made)
    check_root(root)
    (source,) = params.source_images.sources
    if isinstance(source, ImageFolder) and source.root == root:
        return []
    values = as_loaded({"source_images": {"sources": [{"kind": "image_folder", "root": root, **UNSAID}]}})
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
    (source,) = read_params()[0].source_images.sources
    before = "" if changes else ", as before"
    print(f"{PARAMS_FILE}: the pictures come from {source.root}{before}. `make profile NAME=demo` brings the demo back.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
