"""dvc.lock as Dagster events: what each stage's outputs are, what they were made from, and what of it has changed since.

dvc decides what is out of date; this module only words its answer in data versions. Nothing here runs a stage.
"""

import contextlib
import copy
import fcntl
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from dagster import AssetCheckEvaluation, AssetKey, AssetMaterialization, DagsterInstance, MetadataValue
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import PipelineStage as DvcStage

CODE = "assets"  # dependencies in this folder are a stage's code; others that no stage makes are source data
WORK = Path(".cache") / "orchestration"  # in the checkout
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was compiled
SECONDS_TO_WRITE = 2.0  # dvc.lock, at most; from then on it is as somebody left it
DATA_VERSION = "dagster/data_version"
CODE_VERSION = "dagster/code_version"
INPUT_VERSION = "dagster/input_data_version/"
INPUT_EVENT = "dagster/input_event_pointer/"
USER_PROVIDED = "dagster/data_version_is_user_provided"

Describe = Callable[[str], dict[str, MetadataValue]]  # of a stage by its address: the metadata of its artefacts
Judge = Callable[[str], Iterable[AssetCheckEvaluation]]  # and what its checks say of them

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageRecord:
    """One stage as dvc.lock has it, beside the working copy.

    `version` is that of its outputs, None where dvc.lock does not know the stage. `made_from` holds the version of each parent asset that
    they were made from, `outside` the present versions of the parents that no stage makes. `changes` is what `dvc status` says.
    """

    address: str
    version: str | None
    made_from: dict[AssetKey, str]
    outside: dict[AssetKey, str]
    changes: dict[str, Any]
    outputs_intact: bool

    @property
    def key(self) -> AssetKey:
        return asset_key(self.address)

    def tags(self) -> dict[str, str]:
        """The provenance by which Dagster tells whether an asset is out of date."""
        assert self.version is not None
        return {
            DATA_VERSION: self.version,
            USER_PROVIDED: "true",
            CODE_VERSION: self.made_from[recipe_key(self.address)],
            **{INPUT_VERSION + key.to_user_string(): version for key, version in self.made_from.items()},
            **{INPUT_EVENT + key.to_user_string(): "NULL" for key in self.made_from},  # Dagster asks for both; versions are what counts
        }


def asset_key(address: str) -> AssetKey:
    """`evaluation@base` → `evaluation/base`, since Dagster's keys are paths."""
    return AssetKey(address.split("@"))


def recipe_key(address: str) -> AssetKey:
    """The external asset that stands for a stage's command, settings and code, in whatever state they are now."""
    return AssetKey(["recipe", *address.split("@")])


def source_key(path: str) -> AssetKey:
    """The external asset that stands for a file or folder that people, not stages, change."""
    return AssetKey(["source", *(part for part in Path(path).parts if part not in ("/", "..", "."))])


def is_code(path: str) -> bool:
    return Path(path).is_relative_to(CODE)


def read_records(checkout: Path, only: str | None = None) -> list[StageRecord]:
    """Every stage, in the order of dvc.yaml, or one. Hashes what changed since dvc last looked, and nothing else.

    dvc writes dvc.lock in place, for a quarter of a second: where it changed meanwhile, half of it may have been read. That is read again.
    """
    lock = checkout / "dvc.lock"
    while True:
        before = _size(lock)
        try:
            records = _read_records(checkout, lock, only)
        except Exception:  # whatever half a file leads to
            if before is None or time.time_ns() - before[1] > SECONDS_TO_WRITE * 1e9:
                raise
            time.sleep(0.1)
        else:
            if _size(lock) == before:
                return records


def read_lock(lock: Path) -> dict[str, Any]:
    """The entries of dvc.lock by stage."""
    if not lock.exists():
        return {}
    return (yaml.load(lock.read_bytes(), SafeLoader) or {}).get("stages") or {}


def _read_records(checkout: Path, lock: Path, only: str | None) -> list[StageRecord]:
    entries = read_lock(lock)
    with Repo(str(checkout)) as repo:
        graph = repo.index.graph
        stages = [stage for stage in repo.index.stages if isinstance(stage, DvcStage)]  # `dvc add` makes others, which run nothing
        upstream = {stage.name: [each for each in graph.successors(stage) if isinstance(each, DvcStage)] for stage in stages}
        versions = {stage.name: _outputs_version(stage, entries.get(stage.name)) for stage in stages}
        wanted = [stage for stage in stages if only in (None, stage.name)]
        looked_at = {each.name: each for stage in wanted for each in (stage, *upstream[stage.name])}
        output_changes = {name: _changes(stage.outs) for name, stage in looked_at.items()}
        look = _Look(stages)
        return [_record(stage, upstream[stage.name], entries.get(stage.name), versions, output_changes, look, checkout) for stage in wanted]


def _record(
    stage: DvcStage,
    upstream: list[DvcStage],
    entry: dict[str, Any] | None,
    versions: dict[str, str | None],
    output_changes: dict[str, dict[str, str]],
    look: "_Look",
    checkout: Path,
) -> StageRecord:
    recorded = {each["path"]: each.get("md5") for each in (entry or {}).get("deps", [])}
    made_from: dict[AssetKey, str] = {}
    outside: dict[AssetKey, str] = {}
    recipe_changes: dict[str, Any] = {}  # of command, settings and code; and what else Dagster could not see by itself
    changed_dependencies: dict[str, Any] = {}
    own_code: dict[str, Any] = {}
    for dependency in stage.deps:
        path = dependency.def_path
        status = look.changes(dependency)
        changed_dependencies |= status
        if isinstance(dependency, ParamsDependency):
            if status:
                recipe_changes[path] = look.settings(dependency)
            continue
        makers = [each for each in upstream if any(_overlap(out.fs_path, dependency.fs_path) for out in each.outs)]
        if makers:
            for maker in makers:
                key = asset_key(maker.name)
                if not status:
                    made_from.setdefault(key, versions[maker.name] or "unknown")
                else:
                    made_from[key] = _digest([made_from.get(key), recorded.get(path)])
                    if output_changes[maker.name]:  # the file is not the one that dvc.lock says the other stage made
                        recipe_changes[path] = status
        elif is_code(path):
            own_code[path] = recorded.get(path)
            if status:
                recipe_changes[path] = look.current(dependency)
        else:
            made_from[source_key(path)] = str(recorded.get(path))
            outside[source_key(path)] = str(recorded.get(path)) if not status else look.current(dependency)
    if stage.cmd_changed:
        recipe_changes["cmd"] = stage.cmd
    if stage.is_callback or stage.always_changed:
        recipe_changes["always changed"] = True
    if output_changes[stage.name]:
        recipe_changes["outputs"] = {path: [state, _size(checkout / path)] for path, state in output_changes[stage.name].items()}
    made_with = _digest([entry.get("cmd"), entry.get("params"), own_code]) if entry else "never"
    made_from[recipe_key(stage.name)] = made_with
    outside[recipe_key(stage.name)] = made_with if not recipe_changes and entry else _digest([made_with, recipe_changes])
    changes = {
        name: value
        for name, value in {
            "changed deps": changed_dependencies,
            "changed outs": output_changes[stage.name],
            "changed command": stage.cmd_changed,
            "always changed": stage.is_callback or stage.always_changed,
        }.items()
        if value
    }
    return StageRecord(stage.name, versions[stage.name], made_from, outside, changes, outputs_intact=not output_changes[stage.name])


def _outputs_version(stage: DvcStage, entry: dict[str, Any] | None) -> str | None:
    """The md5 of the one output, or of the table of several.

    Left out is what dvc keeps in place (`cache: false, persist: true`): a database's files differ between identical builds.
    """
    if entry is None:
        return None
    in_place = {out.def_path for out in stage.outs if out.persist and not out.use_cache}
    found = {out["path"]: out.get("md5") for out in entry.get("outs", []) if out["path"] not in in_place}
    return str(next(iter(found.values()))) if len(found) == 1 else _digest(found)


def _changes(of: list[Any]) -> dict[str, Any]:
    """What `dvc status` says of outputs or dependencies. A file that vanishes while it is hashed is being written."""
    found: dict[str, Any] = {}
    for each in of:
        try:
            for state in each.status().values():
                found[each.def_path] = state
        except (OSError, DvcException) as problem:
            found[each.def_path] = f"unreadable ({problem})"
    return found


class _Look:
    """At dependencies, once each however many stages share one: dvc lists a whole folder to tell whether it changed, and parses all of
    params.yaml for each stage."""

    def __init__(self, stages: Iterable[DvcStage]) -> None:
        self._settings = [each for stage in stages for each in stage.deps if isinstance(each, ParamsDependency) and each.params]
        self._values: dict[str, dict[str, Any]] = {}
        self._changes: dict[tuple[str, str], dict[str, Any]] = {}
        self._current: dict[str, str] = {}

    def settings(self, dependency: Any) -> dict[str, Any]:
        """What `dependency.read_params()` returns."""
        if not dependency.params:  # the whole file
            return dependency.read_params()
        path = dependency.fs_path
        if path not in self._values:
            everything = copy.copy(dependency)
            everything.params = [name for each in self._settings if each.fs_path == path for name in each.params]
            self._values[path] = everything.read_params()
        return {name: self._values[path][name] for name in dependency.params if name in self._values[path]}

    def changes(self, dependency: Any) -> dict[str, Any]:
        if isinstance(dependency, ParamsDependency):
            looked = copy.copy(dependency)
            looked.read_params = lambda: self.settings(dependency)
            return _changes([looked])
        seen = (dependency.fs_path, str(dependency.hash_info))  # as the stage's entry in dvc.lock has it
        if seen not in self._changes:
            self._changes[seen] = _changes([dependency])
        return self._changes[seen]

    def current(self, dependency: Any) -> str:
        if dependency.fs_path not in self._current:
            self._current[dependency.fs_path] = _current(dependency)
        return self._current[dependency.fs_path]


def _current(dependency: Any) -> str:
    try:
        return str(dependency.get_hash().value) if dependency.exists else "deleted"
    except (OSError, DvcException) as problem:
        return f"unreadable ({problem})"


def _overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def _size(path: Path) -> list[int] | None:
    with contextlib.suppress(OSError):
        return [path.stat().st_size, path.stat().st_mtime_ns]
    return None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def report(
    instance: DagsterInstance, checkout: Path, describe: Describe, judge: Judge, during: Collection[str] = ()
) -> tuple[list[StageRecord], list[AssetKey]]:
    """Bring Dagster's log in step with dvc.lock and the working copy; returns the records, and the stages that had to be reported.

    What was made outside comes with its metadata and checks; `during` names stages whose own runs report them.
    """
    reported = []
    with _one_at_a_time(checkout):
        records = read_records(checkout)
        versions = {record.key: record.version for record in records}
        for record in records:
            for key, version in record.outside.items():
                if _last_tags(instance, key).get(DATA_VERSION) != version:
                    instance.report_runless_asset_event(AssetMaterialization(key, tags={DATA_VERSION: version, USER_PROVIDED: "true"}))
            if record.address in during or record.version is None:
                continue
            if not _tells_the_same(record, _last_tags(instance, record.key), versions):
                metadata: dict[str, MetadataValue] = {"made": MetadataValue.text("outside Dagster, taken from dvc.lock")}
                if record.outputs_intact:
                    metadata |= describe(record.address)
                instance.report_runless_asset_event(AssetMaterialization(record.key, metadata=metadata, tags=record.tags()))
                for evaluation in judge(record.address) if record.outputs_intact else ():
                    instance.report_runless_asset_event(evaluation)
                reported.append(record.key)
    return records, reported


def _tells_the_same(record: StageRecord, last: dict[str, str], versions: dict[AssetKey, str | None]) -> bool:
    """Whether Dagster, by its last event of a stage, judges as dvc does."""
    if last.get(DATA_VERSION) != record.version:
        return False
    now = versions | record.outside
    stale_in_dagster = any(last.get(INPUT_VERSION + key.to_user_string()) != now[key] for key in record.made_from)
    return stale_in_dagster == bool(record.changes)


def _last_tags(instance: DagsterInstance, key: AssetKey) -> dict[str, str]:
    newest = instance.get_latest_materialization_event(key)
    return dict(newest.tags or {}) if newest else {}


@contextlib.contextmanager
def _one_at_a_time(checkout: Path) -> Iterator[None]:
    """Runs and the sensor report from several processes; two at once would report twice."""
    (checkout / WORK).mkdir(parents=True, exist_ok=True)
    with (checkout / WORK / "report.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
