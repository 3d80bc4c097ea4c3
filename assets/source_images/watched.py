"""What dvc watches of the sources: their paths, and for their addresses the file data/addresses.json, which says what lies there.

dvc reads no address. So what a store lists, with sizes and versions, is noted before a run as one hash for each address: by `make demo`,
`make plan`, `make code`, and by Dagster before it reads the sources. A change there is a change of that file, which git keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assets import artifacts
from assets.addresses import is_remote, stored_under
from assets.errors import UserError

PIPELINE = Path("dvc.yaml")
SETTINGS = "${source_images."  # how a dependency of dvc.yaml begins that params.yaml gives


def paths_of(sources: Sequence[Any]) -> dict[str, str]:
    """Each path that the sources name → how dvc.yaml refers to it."""
    return {place: setting for place, setting in _places(sources).items() if not is_remote(place)}


def addresses_of(sources: Sequence[Any]) -> list[str]:
    """Each address that the sources name."""
    return [place for place in _places(sources) if is_remote(place)]


def watched(sources: Sequence[Any]) -> dict[str, str]:
    """Each path that dvc watches for the sources → how dvc.yaml refers to it."""
    noted = str(artifacts.ADDRESSES)
    return paths_of(sources) | ({noted: noted} if addresses_of(sources) else {})


def is_watched(dependency: str) -> bool:
    """Whether a dependency in dvc.yaml is there for the sources."""
    return dependency.startswith(SETTINGS) or dependency == str(artifacts.ADDRESSES)


def _places(sources: Sequence[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, source in enumerate(sources):
        for key in ("root", "pictures"):
            place = getattr(source, key, None)
            if place is not None:
                found.setdefault(place, f"{SETTINGS}sources[{number}].{key}}}")
    return found


def check_watched(sources: Sequence[Any]) -> None:
    """UserError where dvc.yaml watches other paths, so that changes would go unnoticed."""
    if not PIPELINE.is_file():
        return
    given = [each for each in artifacts.read_yaml(PIPELINE)["stages"]["source_images"]["deps"] if is_watched(each)]
    if sorted(given) != sorted(watched(sources).values()):
        raise UserError(
            f"{PIPELINE} watches {', '.join(given) or 'no source'}, and params.yaml names {', '.join(watched(sources)) or 'no path'}."
            " `make code` writes into it what the sources name; then run again."
        )


def note_addresses(sources: Sequence[Any], checkout: Path = Path()) -> list[str]:
    """Write what lies at the addresses now into data/addresses.json; returns what changed, in words. Without addresses there is no file.

    UserError where a store cannot be asked, or has nothing there; the file then stays as it is.
    """
    file = checkout / artifacts.ADDRESSES
    before = noted(checkout)
    now = {address: state_of(address) for address in addresses_of(sources)}
    if not now:
        file.unlink(missing_ok=True)
    elif now != before:
        artifacts.write_json(file, now)
    return [f"{address}: {_said(state, before.get(address))}" for address, state in now.items() if state != before.get(address)]


def noted(checkout: Path = Path()) -> dict[str, Any]:
    """What was noted last, by address."""
    file = checkout / artifacts.ADDRESSES
    return dict(artifacts.read_json(file)) if file.is_file() else {}


def check_noted(sources: Sequence[Any]) -> None:
    """UserError where other things lie at the addresses than were noted: dvc would record them as what was read."""
    said = noted()
    for address in addresses_of(sources):
        if (now := state_of(address)) != said.get(address):
            raise UserError(
                f"{address}: {_said(now, said.get(address))}, and not yet noted in {artifacts.ADDRESSES}. `make code` notes it; then run"
                " again (`make demo` does both)."
            )


def state_of(address: str) -> dict[str, Any]:
    """How many objects lie there, their bytes together, and a hash of their names, sizes and versions. UserError for none."""
    found = stored_under(address)
    if not found:
        raise UserError(f"source_images.sources: there is nothing at {address}. Check the address, and put pictures there.")
    digest = hashlib.sha256()
    for name, each in found.items():
        digest.update(f"{name}\0{each.size}\0{each.version}\0".encode("utf-8", "surrogatepass"))
    return {"objects": len(found), "bytes": sum(each.size for each in found.values()), "sha256": digest.hexdigest()}


def _said(now: dict[str, Any], before: dict[str, Any] | None) -> str:
    said = f"{now['objects']:,} objects, {now['bytes']:,} bytes"
    return said if before is None else f"{said}; {before['objects']:,} objects, {before['bytes']:,} bytes before"
