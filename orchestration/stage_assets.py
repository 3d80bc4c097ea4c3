"""dvc.yaml as Dagster assets: one for each stage and recipe, with dvc's edges between them. Running one is dvc_stage's concern."""

import contextlib
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    AssetSpec,
    DataVersion,
    Failure,
    FreshnessPolicy,
    MaterializeResult,
    MetadataValue,
    OpExecutionContext,
    PipesMessageHandler,
    PipesSession,
    PipesTempFileContextInjector,
    PipesTempFileMessageReader,
    PreviewWarning,
    RetryPolicy,
    RetryRequested,
    asset,
)
from dagster._core.pipes.context import build_external_execution_context_data  # see _pipes: there is no public way
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage as DvcStage

from assets import artifacts
from assets.errors import UserError
from assets.params import read_params
from assets.source_images.watched import note_addresses
from orchestration.dvc_stage import Held, StageFailed, alone_at, reproduce, running
from orchestration.metadata import NOT_SHOWN, sent_by
from orchestration.record import DATA_VERSION, Describe, Judge, asset_key, is_code, read_lock, read_records, recipe_key, report, source_key

UNCHANGED = "unchanged, taken from dvc.lock"
UNNAMED = {"group": "other", "kinds": []}  # of a stage without these in its `meta`


@dataclass(frozen=True)
class PipelineStage:
    """A stage as dvc resolves it. `address` is dvc's name for it (`evaluation@base`), `upstream` the addresses it takes outputs from.

    `sources` are the paths that it reads and neither a stage nor its code makes; `recipe` is its command, settings and code in words.
    """

    address: str
    description: str
    meta: dict[str, Any]  # group, kinds and, where few may run at once, pool
    upstream: tuple[str, ...]
    sources: tuple[str, ...]
    outputs: tuple[str, ...]
    recipe: str


def read_pipeline(checkout: Path) -> list[PipelineStage]:
    """The stages of dvc.yaml, its foreach and parameters filled in, in its order. What `dvc add` tracks is made by nobody: a source."""
    with Repo(str(checkout)) as repo:
        graph = repo.index.graph  # from a stage to those it depends on; `name`, since `addressing` depends on the working directory
        stages = [stage for stage in repo.index.stages if isinstance(stage, DvcStage)]
        made = [Path(out.fs_path) for stage in stages for out in stage.outs]
        found = []
        for stage in stages:
            files = [each for each in stage.deps if not isinstance(each, ParamsDependency)]
            settings = [name for each in stage.deps if isinstance(each, ParamsDependency) for name in each.params]
            code = [each.def_path for each in files if is_code(each.def_path)]
            found.append(
                PipelineStage(
                    address=stage.name,
                    description=stage.desc,
                    meta=UNNAMED | (stage.meta or {}),
                    upstream=tuple(sorted(each.name for each in graph.successors(stage) if isinstance(each, DvcStage))),
                    sources=tuple(
                        each.def_path
                        for each in files
                        if not is_code(each.def_path)
                        and not any(path.is_relative_to(each.fs_path) or Path(each.fs_path).is_relative_to(path) for path in made)
                    ),
                    outputs=tuple(out.def_path for out in stage.outs),
                    recipe="\n".join(
                        [f"`{stage.cmd}`", *(f"- setting `{name}`" for name in settings), *(f"- code `{path}`" for path in code)]
                    ),
                )
            )
        return found


def stage_asset(
    stage: PipelineStage,
    checkout: Path,
    describe: Describe,
    judge: Judge,
    retries: RetryPolicy | None = None,
    freshness: timedelta | None = None,
    on_failure: Callable[[AssetExecutionContext, float], None] | None = None,
) -> AssetsDefinition:
    """One asset. `report` uses `describe` and `judge`; `on_failure` reports what can be read of a run that failed."""

    @asset(
        key=asset_key(stage.address),
        deps=[*map(asset_key, stage.upstream), *map(source_key, stage.sources), recipe_key(stage.address)],
        description=stage.description,
        group_name=stage.meta["group"],
        kinds=set(stage.meta["kinds"]),
        owners=stage.meta.get("owners"),
        pool=stage.meta.get("pool"),
        freshness_policy=FreshnessPolicy.time_window(fail_window=freshness) if freshness else None,
        metadata={"dvc stage": stage.address, "outputs": MetadataValue.md("\n".join(f"- `{path}`" for path in stage.outputs))},
    )
    def materialize(context: AssetExecutionContext) -> Iterator[MaterializeResult]:
        # held until Dagster has stored what is yielded; else the sensor, or a waiting run, would see a stage that nobody reported
        with alone_at(stage.address, checkout, context.log.warning, reads=stage.upstream) as held:
            yield make(context, held)

    def make(context: AssetExecutionContext, held: Held) -> MaterializeResult:
        if str(artifacts.ADDRESSES) in stage.sources:
            _note_addresses(context, checkout)
        before, begun = read_lock(checkout / "dvc.lock").get(stage.address), time.time()
        with _pipes(context.op_execution_context) as session:  # Dagster itself calls what it deprecates of the other
            context.log.info("dvc repro --single-item %s", stage.address)
            try:
                reproduce(held, session.get_bootstrap_env_vars(), context.run.run_id, context.log.warning)
                failed = None
            except StageFailed as problem:
                failed = problem
            except BaseException:  # Terminate
                remove_half_written(checkout, stage.outputs)
                raise
        # what the stage itself sent, which is complete only when the session is closed
        sent: dict[str, Any] = {}
        for message in session.get_custom_messages():
            sent |= message
        handler = session.message_handler
        if failed:
            remove_half_written(checkout, stage.outputs)
            if on_failure:
                on_failure(context, begun)
            report(context.instance, checkout, describe, judge, during=running(checkout))
            killed = failed.killed or (handler.received_opened_message and not handler.received_closed_message)
            error = sent.get("error")
            again = context.op_execution_context.retry_number + 1
            if retries and again <= retries.max_retries and (killed or sent.get("retry", False)):
                # not by a policy, by which Dagster would also repeat what somebody terminated
                raise RetryRequested(retries.max_retries, retries.calculate_delay(again)) from failed
            raise Failure(error or str(failed), metadata={"dvc": str(failed)}, allow_retries=False) from None
        after = read_lock(checkout / "dvc.lock").get(stage.address)
        if handler.received_opened_message or before != after:
            made = "now, by `dvc repro`" if handler.received_opened_message else "now, by dvc, from its run cache or a command"
        else:
            made = UNCHANGED
        context.log.info(made)
        heard = sent_by(sent)
        if made == UNCHANGED:
            (record,) = read_records(checkout, only=stage.address)
            last = context.instance.get_latest_materialization_event(context.asset_key)
            if last and last.asset_materialization and (last.asset_materialization.tags or {}).get(DATA_VERSION) == record.version:
                earlier = last.asset_materialization.metadata
                heard = {name: value for name, value in earlier.items() if name not in (NOT_SHOWN, "made")}
        else:
            records, _ = report(context.instance, checkout, describe, judge, during=running(checkout))
            (record,) = [each for each in records if each.address == stage.address]
        if record.version is None:
            raise Failure(f"dvc.lock has no {stage.address} after `dvc repro`; is the stage frozen, or does dvc.yaml just change?")
        return MaterializeResult(
            data_version=DataVersion(record.version),
            tags=record.tags(),
            metadata={"made": MetadataValue.text(made), **heard, **describe(stage.address)},
        )

    return materialize


def _note_addresses(context: AssetExecutionContext, checkout: Path) -> None:
    """dvc goes by what is noted of the addresses; where they cannot be asked, the stage says what that means."""
    try:
        for line in note_addresses(read_params(checkout / "params.yaml")[0].source_images.sources, checkout):
            context.log.info("%s: %s", artifacts.ADDRESSES, line)
    except UserError as problem:
        context.log.warning("%s", problem)


def outside_assets(stages: list[PipelineStage]) -> list[AssetSpec]:
    """What stages read and no stage makes, each as an asset that Dagster watches: the sources, and every stage's recipe."""
    sources = sorted({path for stage in stages for path in stage.sources})
    return [
        *(
            AssetSpec(source_key(path), group_name="source", kinds={"file"}, description=f"`{path}`, which people change and stages read.")
            for path in sources
        ),
        *(
            AssetSpec(
                recipe_key(stage.address),
                group_name="recipe",
                kinds={"dvc"},
                description=f"How {stage.address} is made. A new version of it means that its command, settings or code changed, or that"
                f" its outputs are not those of dvc.lock.\n\n{stage.recipe}",
            )
            for stage in stages
        ),
    ]


def remove_half_written(checkout: Path, outputs: tuple[str, ...]) -> None:
    """Remove the temporary files, `.<output>.<pid>.tmp`, of processes that were killed while they wrote."""
    for output in outputs:
        path = checkout / output
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            pid = left.name.removesuffix(".tmp").rpartition(".")[2]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


@contextlib.contextmanager
def _pipes(context: OpExecutionContext) -> Iterator[PipesSession]:
    """`open_pipes_session`, but for its warning of a process that sent nothing: a stage that dvc skips sends nothing."""
    data = build_external_execution_context_data(context, extras=None)
    reader = PipesTempFileMessageReader()
    with warnings.catch_warnings(action="ignore", category=PreviewWarning):  # Dagster on its own
        handler = PipesMessageHandler(context, reader)
    with PipesTempFileContextInjector().inject_context(data) as injected, handler.handle_messages() as read:
        yield PipesSession(data, handler, injected, read, context)
