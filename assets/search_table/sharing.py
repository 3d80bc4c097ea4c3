"""A copy of the published table at an address, for searches from elsewhere: rows, versions, tags, and the models that answer its queries.

Lance writes no file twice, but for tags and its hint at the latest version. So only new files go there: first what versions refer to, then
the versions, then tags and hint. A reader sees the old version or the new one, whole. What was removed here goes there last.
"""

from __future__ import annotations

from assets import artifacts
from assets.addresses import copy_to, is_remote, read_each, remove, stored_under
from assets.errors import UserError
from assets.search_table.table import MODELS, TABLE
from assets.search_table.versions import HOW_TO_PUBLISH, only_writer, open_dataset, remove_leftovers

VERSIONS, TAGS = f"{TABLE.name}/_versions/", f"{TABLE.name}/_refs/"


def share(address: str) -> str:
    """Make the address hold what data/lancedb holds; what was done, in words.

    UserError where there is no table here, and where another table is there: its readers would see two histories mixed.
    """
    if not is_remote(address):
        raise UserError(f"TO: given {address!r}; allowed is an address such as s3://bucket/lancedb.")
    dataset = open_dataset()
    if dataset is None:
        raise UserError(f"there is no table in {artifacts.LANCEDB}. {HOW_TO_PUBLISH}")
    with only_writer():
        remove_leftovers(dataset)
        folders = (TABLE, MODELS)
        here = {path.relative_to(artifacts.LANCEDB).as_posix(): path for root in folders for path in root.rglob("*") if path.is_file()}
        there = {name: each for name, each in stored_under(address).items() if name.startswith((f"{TABLE.name}/", f"{MODELS.name}/"))}
        common = sorted(here.keys() & there.keys())
        compared = [name for name in common if name.startswith((VERSIONS, TAGS))]
        contents = dict(zip(compared, read_each([there[name] for name in compared]), strict=True))
        changed = {name for name, content in contents.items() if content != here[name].read_bytes()}
        foreign = [name for name in changed if _is_version(name)]
        lost = [name for name in there if _is_version(name)]
        if foreign or (lost and not set(lost) & here.keys()):
            raise UserError(
                f"{address} holds another table than {artifacts.LANCEDB}: their versions differ. Name another address, or remove that"
                " table first, if nobody searches it."
            )
        changed |= {name for name in common if name not in contents and here[name].stat().st_size != there[name].size}
        new = sorted((here.keys() - there.keys()) | changed, key=_turn)
        gone = sorted(there.keys() - here.keys(), key=_turn, reverse=True)
        for turn in range(3):
            copy_to({here[name]: f"{address}/{name}" for name in new if _turn(name)[0] == turn})
        remove([there[name].address for name in gone])
    sent = sum(here[name].stat().st_size for name in new)
    return f"{address} holds the table as it is here: {len(new)} files, {sent:,} bytes copied, {len(gone)} files removed."


def _turn(name: str) -> tuple[int, str]:
    """When it goes there, and its name."""
    if name.startswith((VERSIONS, TAGS)):
        return (1 if _is_version(name) else 2, name)
    return (0, name)


def _is_version(name: str) -> bool:
    return name.startswith(VERSIONS) and name.endswith(".manifest")
