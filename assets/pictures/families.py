"""Classes belong together in families, which a split keeps whole: sources name them, and curated_images needs one for each class."""

from __future__ import annotations

from collections.abc import Iterable

from assets.errors import UserError


def one_family(pictures: Iterable[tuple[str | None, str | None, str]]) -> dict[str, str]:
    """Of (label, family, picture): the family of each label that has one. UserError for a label of two families."""
    found: dict[str, tuple[str, str]] = {}
    for label, family, picture in pictures:
        if label is None or family is None:
            continue
        other, example = found.setdefault(label, (family, picture))
        if other != family:
            raise UserError(
                f"the class {label} is of two families: {other} ({example}) and {family} ({picture}). A class has one family:"
                " correct it, or give two classes two names."
            )
    return {label: family for label, (family, _) in found.items()}
