"""The versions of the published table: how one becomes visible, its tags, going back, and which stay. Filling them is writing.py's.

A publish is one Lance version, made beside the visible one and put in its place in one step (a Lance commit of `Restore`), so that no
reader sees rows without their indexes. The commit carries the manifest, and what was measured. No version changes afterwards: who holds
one open reads on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
from lance import LanceDataset, LanceOperation
from lance.dataset import Transaction

from assets import artifacts
from assets.clip.kept_graphs import GRAPHS
from assets.errors import UserError
from assets.search_table.table import MODELS, PROPERTY, TABLE

logger = logging.getLogger(__name__)

STATE = artifacts.LANCEDB / "published.json"  # all that dvc sees of data/lancedb: a hash of what the visible version holds
LOCK = artifacts.LANCEDB / ".lock"

CANDIDATE, CHAMPION = "candidate", "champion"
PUBLISH = re.compile(r"publish-(\d{4,})")
HOW_TO_PUBLISH = "`dvc repro --force --single-item search_table` publishes the table anew."


@dataclass(frozen=True)
class Version:
    """One version of the table. `publish` and `manifest` are None where something else than a publish wrote it."""

    number: int
    time: datetime  # since when it was the visible one
    until: datetime | None  # None: it is
    tags: tuple[str, ...]
    rows: int
    publish: str | None
    manifest: dict[str, Any] | None
    measured: dict[str, Any]  # what storage.py measured of it before it was shown

    @property
    def model(self) -> str | None:
        return model_of(self.manifest) if self.manifest else None


def model_of(manifest: dict[str, Any]) -> str:
    return artifacts.model_name(manifest["recipe"], manifest["model_sha256"])


def open_dataset(path: Path = TABLE) -> LanceDataset | None:
    """The visible version. None where there is no table, also where a killed first publish of old left a folder without a version."""
    if not any((path / "_versions").glob("*.manifest")):
        return None
    return lance.dataset(path)


def read_versions(dataset: LanceDataset) -> list[Version]:
    """All that are there, oldest first."""
    tags: dict[int, list[str]] = {}
    for name, tag in dataset.tags.list().items():
        tags.setdefault(tag["version"], []).append(name)
    listed: Any = dataset.versions()
    times = [each["timestamp"].astimezone(UTC) for each in listed]  # Lance gives local times without a zone
    found = []
    for each, time, until in zip(listed, times, [*times[1:], None], strict=True):
        told = _told(dataset, each["version"])
        found.append(
            Version(
                each["version"],
                time,
                until,
                tuple(sorted(tags.get(each["version"], []))),
                int(each["metadata"]["total_rows"]),
                told.get("publish"),
                told.get("manifest"),
                told.get("measured", {}),
            )
        )
    return found


def _told(dataset: LanceDataset, version: int) -> dict[str, Any]:
    """What the commit of a version says of it; nothing where it was not ours."""
    try:
        transaction = dataset.read_transaction(version)
    except (OSError, ValueError, RuntimeError):  # its file is gone
        return {}
    said = (transaction.transaction_properties or {}) if transaction else {}
    found: dict[str, Any] = json.loads(said.get(PROPERTY, "{}"))
    return found


@contextlib.contextmanager
def only_writer() -> Iterator[None]:
    """One process at a time changes the table: clearing leftovers would take away what another one is still writing."""
    try:
        LOCK.parent.mkdir(parents=True, exist_ok=True)
        opened = LOCK.open("w")
    except OSError as error:
        raise UserError(f"{artifacts.LANCEDB} cannot be written: {error.strerror}. Reading and searching it needs no writing.") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                "another process is publishing the table, or rolls it back, right now. Try again when it has finished."
            ) from None
        yield


@contextlib.contextmanager
def named_full_disk() -> Iterator[None]:
    """Lance wraps a full disk in an error of its own; give it back the form that the command line explains."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(artifacts.LANCEDB)) from error
        raise


def show(base: LanceDataset, staged: int, publish: str, manifest: dict[str, Any], measured: dict[str, Any]) -> LanceDataset:
    """Make version `staged` of the table, visible or not so far, the visible one. UserError where it changed since `base` was read."""
    changed = UserError(f"something else has written to the table in {artifacts.LANCEDB} meanwhile. {HOW_TO_PUBLISH}")
    if base.latest_version != base.version:
        raise changed
    said = {PROPERTY: json.dumps({"publish": publish, "manifest": manifest, "measured": measured}, ensure_ascii=False)}
    STATE.unlink(missing_ok=True)  # killed from here on, dvc finds the stage out of date
    done = LanceDataset.commit(
        base, Transaction(read_version=base.version, operation=LanceOperation.Restore(staged), transaction_properties=said), max_retries=0
    )
    if done.version != base.version + 1:  # in the moment between: theirs is kept as an earlier version
        raise changed
    return done


def record(manifest: dict[str, Any]) -> None:
    """Write what dvc and Dagster know the table by. A function of what the table holds, not of the way there."""
    artifacts.write_json(artifacts.TABLE_MANIFEST, manifest)
    artifacts.write_json(STATE, {"manifest_sha256": hashlib.sha256(artifacts.TABLE_MANIFEST.read_bytes()).hexdigest()})


def set_tag(dataset: LanceDataset, name: str, version: int) -> None:
    if name not in (tags := dataset.tags.list()):
        dataset.tags.create(name, version)
    elif tags[name]["version"] != version:
        dataset.tags.update(name, version)


def next_publish(versions: list[Version]) -> str:
    return f"publish-{1 + max([publish_number(version) for version in versions], default=0):04}"


def publish_number(version: Version) -> int:
    """0 for a version that no publish wrote."""
    match = PUBLISH.fullmatch(version.publish or "")
    return int(match[1]) if match else 0


def remove_leftovers(dataset: LanceDataset) -> None:
    """What killed writers left: versions that never became visible, and files that no version names. Call as the only writer."""
    for begun in artifacts.LANCEDB.glob(f".{TABLE.name}.*.tmp"):
        shutil.rmtree(begun)
    for hidden in (TABLE / "_versions").glob("d*.manifest"):  # Lance's name for a detached version
        hidden.unlink()
    # no version is as old as that: this removes only what none refers to
    dataset.cleanup_old_versions(timedelta(days=365_000), delete_unverified=True, error_if_tagged_old_versions=False)


def prune(dataset: LanceDataset, kept_publishes: int, kept_days: float, now: datetime | None = None) -> None:
    """Remove the versions that are neither visible, nor tagged, nor were replaced within `kept_days`, and models and graphs of none else.

    First the tags of all but the newest `kept_publishes` publishes go, after the same time; those of the candidate and the champion stay.
    """
    since = (now or datetime.now(UTC)) - timedelta(days=kept_days)
    versions = read_versions(dataset)
    numbers = sorted({publish_number(version) for version in versions} - {0}, reverse=True)
    kept = set(numbers[:kept_publishes])
    removed = []
    for version in versions:
        if version.until is None or version.until > since:
            continue
        expired = version.publish if publish_number(version) not in kept else None
        if set(version.tags) - {expired}:  # the candidate's, the champion's, or a tag of yours
            continue
        for tag in version.tags:
            dataset.tags.delete(tag)
        removed.append(version.number)
    if removed:
        dataset.cleanup_old_versions(versions=removed, delete_unverified=True, error_if_tagged_old_versions=True)
        logger.info("removed %d earlier versions of the table", len(removed))
    needed = {version.model for version in versions if version.number not in removed}
    for model in (*MODELS.glob("*"), *GRAPHS.glob("*")):
        if model.name not in needed:
            shutil.rmtree(model)


def keep_model(directory: Path, name: str, sha256: str) -> None:
    """Keep the model beside the table, so that queries work whatever becomes of `directory`; by hard links, which need no space."""
    if (MODELS / name).is_dir() and artifacts.sha256_of(MODELS / name) == sha256:
        return

    with artifacts.replacing(MODELS / name) as temporary:
        artifacts.linked_copy(directory, temporary)


def tag_champion(model_sha256: str) -> Version | None:
    """Give the tag `champion` to the newest version made by this model, and return it; None where there is none."""
    dataset = open_dataset()
    if dataset is None:
        return None
    with only_writer():
        made = [version for version in read_versions(dataset) if version.manifest and version.manifest["model_sha256"] == model_sha256]
        if made:
            set_tag(dataset, CHAMPION, made[-1].number)
    return made[-1] if made else None


def roll_back(wanted: str | None) -> Version:
    """Make an earlier publish the visible version again; returns it. `wanted` is a tag or a number, None the publish before this one.

    Rows, vectors and indexes are those of that version, so its answers are, too. Nothing is removed.
    """
    dataset = open_dataset()
    if dataset is None:
        raise UserError(f"there is no table in {artifacts.LANCEDB}, so there is nothing to go back to. {HOW_TO_PUBLISH}")
    with only_writer(), named_full_disk():
        dataset.checkout_latest()
        versions = read_versions(dataset)
        target = _find(versions, wanted)
        assert target.publish is not None and target.manifest is not None
        if target.publish != versions[-1].publish:
            show(dataset, target.number, target.publish, target.manifest, target.measured)
        record(target.manifest)
        return target


def _find(versions: list[Version], wanted: str | None) -> Version:
    published = [version for version in versions if version.publish]
    known = ", ".join(dict.fromkeys(tag for version in published for tag in version.tags)) or "none"
    if wanted is not None:
        for version in reversed(published):
            if wanted in (str(version.number), *version.tags):
                return version
        raise UserError(f"there is no published version {wanted!r}. There are: {known}. `make versions` lists them, also by number.")
    before = [version for version in published if publish_number(version) < publish_number(versions[-1])]
    if not versions[-1].publish:  # something else wrote the visible one
        before = published
    if not before:
        raise UserError(f"no publish before {versions[-1].publish} is kept. There are: {known}. Name one: make rollback VERSION=…")
    return max(before, key=publish_number)
