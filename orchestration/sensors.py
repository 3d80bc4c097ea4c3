"""What Dagster watches: dvc.lock and the working copy, the source's pictures, killed runs, failed runs."""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    RunFailureSensorContext,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    run_failure_sensor,
    sensor,
)

from assets.addresses import stored_under
from assets.errors import UserError
from assets.params import Orchestration, read_params
from assets.source_images.watched import addresses_of, paths_of
from orchestration.dvc_stage import dead_runs, end_orphans, living_runs, running
from orchestration.record import Describe, Judge, report
from orchestration.schedules import RETRAIN

WEBHOOK = "ONESPACE_FAILURE_WEBHOOK"  # an address may hold a secret, so the environment can give it

logger = logging.getLogger(__name__)


def dvc_lock_sensor(checkout: Path, describe: Describe, judge: Judge) -> SensorDefinition:
    @sensor(
        name="dvc_lock",
        minimum_interval_seconds=30,
        default_status=DefaultSensorStatus.RUNNING,
        description="Reports what `dvc repro`, `dvc checkout`, git or an editor changed outside Dagster, and clears up after killed runs.",
    )
    def dvc_lock(context: SensorEvaluationContext) -> SkipReason:
        clear_up(context.instance, checkout)
        _, reported = report(context.instance, checkout, describe, judge, during=running(checkout))
        if reported:
            return SkipReason(f"reported {', '.join(key.to_user_string() for key in reported)}")
        return SkipReason("Dagster shows what dvc.lock records")

    return dvc_lock


def clear_up(instance: DagsterInstance, checkout: Path) -> None:
    """End stages that killed runs left behind, mark those runs as failed, and give back the pool slots of finished runs.

    A run that Dagster holds for finished and that goes on was terminated by force, when its code server was gone: it is ended too.
    """
    end_orphans(checkout, logger.warning)
    for run_id in dead_runs(checkout):
        run = instance.get_run_by_id(run_id)
        if run and not run.is_finished:
            instance.report_run_failed(run, "The run's process was killed. What it had begun was ended; materialize again to go on.")
    for run_id, process in living_runs(checkout):
        run = instance.get_run_by_id(run_id)
        if run and run.is_finished:
            logger.warning("run %s was terminated, but its process %d goes on: ending it.", run_id, process)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
    for run_id in instance.event_log_storage.get_concurrency_run_ids():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def new_images_sensor(checkout: Path, settings: Orchestration) -> SensorDefinition:
    @sensor(
        name="new_images",
        job_name=RETRAIN,
        minimum_interval_seconds=300,
        description=f"Starts a retraining when {settings.retrain_from_new_images} files of the source's folder are new, changed or gone.",
    )
    def new_images(context: SensorEvaluationContext) -> SensorResult:
        sources = [source for source in read_params(checkout / "params.yaml")[0].source_images.sources if source.kind != "emoji"]
        roots, addresses = [checkout / path for path in paths_of(sources)], addresses_of(sources)
        if not sources:
            return SensorResult(skip_reason="the sources (emoji) are pinned by a lock file: nothing comes by itself")
        seen = json.loads(context.cursor) if context.cursor else None
        since = seen["newest"] if seen else 0
        try:
            now = together(fingerprint(roots, since), at_addresses(addresses, since))
        except UserError as problem:  # the next look may succeed
            return SensorResult(skip_reason=str(problem), cursor=context.cursor)
        if seen is None:
            return SensorResult(skip_reason=f"{now['files']} files to begin with", cursor=json.dumps(now))
        if not now["files"]:
            return SensorResult(
                skip_reason=f"{', '.join(map(str, [*roots, *addresses]))}: empty or not there, so there is nothing to train on"
            )
        changed = now["newer"] + max(0, seen["files"] - now["files"])  # at least: a file that went while another came is not seen
        if changed < settings.retrain_from_new_images:
            return SensorResult(
                skip_reason=f"{changed} files are new, changed or gone; {settings.retrain_from_new_images} start a retraining"
            )
        return SensorResult(
            run_requests=[RunRequest(run_key=hashlib.sha256(json.dumps([seen, now]).encode()).hexdigest())], cursor=json.dumps(now)
        )

    return new_images


def fingerprint(roots: Sequence[Path], since: int) -> dict[str, int]:
    """How many files there are in folders, how many changed after `since`, and the latest change (nanoseconds of st_ctime).

    A root that is a file counts as one. Nothing is read.

    Links are followed, never in circles, so that what changes behind one is counted; one that leads nowhere counts by itself.
    """
    files = newer = 0
    newest = since
    folders: list[tuple[Path, frozenset[tuple[int, int]]]] = []
    for root in roots:
        if not root.is_file():
            folders.append((root, frozenset()))
            continue
        changed = root.stat().st_ctime_ns
        files, newer, newest = files + 1, newer + (changed > since), max(newest, changed)
    while folders:
        folder, above = folders.pop()
        try:
            here = (folder.stat().st_dev, folder.stat().st_ino)
            entries = [] if here in above else list(os.scandir(folder))
        except FileNotFoundError:  # it went away while we looked
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append((Path(entry.path), above | {here}))
                continue
            try:
                changed = _changed(entry)
            except FileNotFoundError:
                continue
            files += 1
            newer += changed > since
            newest = max(newest, changed)
    return {"files": files, "newer": newer, "newest": newest}


def at_addresses(addresses: Sequence[str], since: int) -> dict[str, int]:
    """As `fingerprint`, of what stores list. Where a store does not say when an object changed, it counts among the files alone."""
    times = [each.changed for address in addresses for each in stored_under(address).values()]
    return {"files": len(times), "newer": sum(changed > since for changed in times), "newest": max([since, *times])}


def together(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    counted = {name: one[name] + other[name] for name in ("files", "newer")}
    return counted | {"newest": max(one["newest"], other["newest"])}


def _changed(entry: os.DirEntry[str]) -> int:
    """Nanoseconds of st_ctime, which copying sets too where it keeps st_mtime."""
    try:
        return entry.stat().st_ctime_ns
    except OSError:  # a link that leads nowhere
        return entry.stat(follow_symlinks=False).st_ctime_ns


def run_failure_hook(settings: Orchestration) -> SensorDefinition:
    @run_failure_sensor(
        name="run_failure",
        default_status=DefaultSensorStatus.RUNNING,
        description=f"Reports failed runs: posts JSON to orchestration.failure_webhook or ${WEBHOOK}, else writes to the log.",
    )
    def run_failure(context: RunFailureSensorContext) -> None:
        told = {
            "text": f"onespace: {context.dagster_run.job_name} failed: {context.failure_event.message}",
            "job": context.dagster_run.job_name,
            "run_id": context.dagster_run.run_id,
            "error": context.failure_event.message,
        }
        address = os.environ.get(WEBHOOK) or settings.failure_webhook
        if address is None:
            context.log.error(told["text"])
        else:
            post(address, told)

    return run_failure


def post(address: str, told: dict[str, Any]) -> None:
    """POST as JSON. A hook that does not answer is logged by the kind of error alone: the address, and what errors quote of it, may hold a
    secret."""
    try:
        request = urllib.request.Request(address, json.dumps(told).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10):
            pass
    except (OSError, http.client.HTTPException, ValueError) as problem:
        logger.error("the failure webhook could not be reached (%s). It would have received: %s", type(problem).__name__, told["text"])
