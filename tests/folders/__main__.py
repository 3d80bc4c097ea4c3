"""python -m tests.folders concepts|alike FOLDER [PICTURES]: draw an image folder unlike the demo, for trials of the default settings.

The pictures are icons of nine sets, black lines and areas on white, in several styles. The class is the icon's name in the sets.
concepts: things of all kinds, each drawn by three sets or more. alike: classes such as «file plus» and «file minus», whose pictures and
captions hardly differ. Package versions are pinned by the lock file beside this module.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from assets import artifacts
from assets.source_images.iconify import read_icons, render, svg
from assets.source_images.npm_packages import install

HERE = Path(__file__).parent
SIZE = 96  # pixels
SETS = ("bi", "carbon", "fluent", "lucide", "mdi", "ph", "ri", "solar", "tabler")
STYLES = (  # what a set adds to a name for another drawing of the same thing
    *("outline", "filled", "fill", "bold", "thin", "light", "duotone", "line", "linear", "broken", "regular", "rounded"),
    *("line-duotone", "bold-duotone"),
)
FIXED_SIZE = re.compile(r"-(16|20|24|28|32|48)-(filled|regular|light)$")  # fluent draws one icon at several sizes
HEADS = (  # first words of the classes that are alike
    *("align", "arrow", "battery", "calendar", "chart", "clock", "cloud", "file", "folder", "heart", "home", "image", "layout", "lock"),
    *("mail", "map", "message", "note", "phone", "shield", "table", "text", "user", "volume", "wifi", "zoom"),
)
SETS_OF_A_CLASS = 3
VIEWS_OF_A_CLASS = 8
PICTURES = 3000


def drawings(packages: Path) -> dict[str, list[tuple[str, str]]]:
    """Class key → (set, icon) of its drawings, for classes that several sets draw."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in SETS:
        for icon in sorted(read_icons(packages / "@iconify-json" / name).icons):
            if (key := class_of(icon)) is not None:
                found[key].append((name, icon))
    return {key: views for key, views in sorted(found.items()) if len({name for name, _ in views}) >= SETS_OF_A_CLASS}


def class_of(icon: str) -> str | None:
    """The icon's name without its style; None for one of fluent's other sizes."""
    if match := FIXED_SIZE.search(icon):
        if match[1] != "24":
            return None
        icon = icon[: match.start()]
    for style in sorted(STYLES, key=len, reverse=True):
        icon = icon.removesuffix(f"-{style}")
    return icon


def chosen(found: dict[str, list[tuple[str, str]]], kind: str, pictures: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Classes in an order by hash, each with up to VIEWS_OF_A_CLASS drawings, until there are enough pictures."""
    of_kind = [key for key in found if (key.partition("-")[0] in HEADS) == (kind == "alike")]
    for key in sorted(of_kind, key=_hash):
        if pictures <= 0:
            return
        views = sorted(found[key], key=lambda view: _hash("/".join(view)))[:VIEWS_OF_A_CLASS]
        pictures -= len(views)
        yield key, views


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def draw(kind: str, folder: Path, pictures: int) -> int:
    """Fill the new `folder` with classes, pictures and captions.csv; returns how many pictures there are."""
    packages = install(HERE, artifacts.WORK / "folders")
    icons = {name: read_icons(packages / "@iconify-json" / name) for name in SETS}
    captions: list[tuple[str, str]] = []
    with artifacts.replacing(folder) as temporary:
        for key, views in chosen(drawings(packages), kind, pictures):
            (temporary / key).mkdir(parents=True)
            for name, icon in views:
                path = f"{key}/{name}-{icon}.png"
                (temporary / path).write_bytes(render(svg(icons[name], icon, SIZE)))
                captions += [(path, word) for word in key.split("-") if len(word) > 1]
        with (temporary / "captions.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "caption"), *captions])
    return sum(1 for _ in folder.glob("*/*.png"))


def main(arguments: list[str]) -> int:
    if not 2 <= len(arguments) <= 3 or arguments[0] not in ("concepts", "alike") or not all(map(str.isdecimal, arguments[2:])):
        print(__doc__, file=sys.stderr)
        return 2
    kind, folder = arguments[0], Path(arguments[1])
    if folder.exists():
        print(f"error: {folder} is there already. Name a new folder.", file=sys.stderr)
        return 1
    count = draw(kind, folder, int(arguments[2]) if len(arguments) == 3 else PICTURES)
    print(f"{folder}: {count} pictures of {sum(each.is_dir() for each in folder.iterdir())} classes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
