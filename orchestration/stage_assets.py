"""dvc.yaml as Dagster assets: one for each stage and recipe, with dvc's edges between them. Running one is dvc_stage's concern."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetsDefinition, Failure, asset
from dvc.repo import Repo

from orchestration.dvc_stage import StageFailed, reproduce


@dataclass(frozen=True)
class PipelineStage:
    """A stage as dvc resolves it. `address` is dvc's name for it (`evaluation@base`), `upstream` the addresses it takes outputs from."""

    address: str
    description: str
    meta: dict[str, Any]  # group, kinds and, where few may run at once, pool
    upstream: tuple[str, ...]


def read_pipeline(checkout: Path) -> list[PipelineStage]:
    """The stages of dvc.yaml, matrix and parameters filled in, in its order."""
    with Repo(str(checkout)) as repo:
        graph = repo.index.graph  # from a stage to those it depends on; `name`, since `addressing` depends on the working directory
        return [
            PipelineStage(
                address=stage.name,
                description=stage.desc,
                meta=stage.meta,
                upstream=tuple(sorted(each.name for each in graph.successors(stage))),
            )
            for stage in repo.index.stages
        ]


def asset_key(address: str) -> AssetKey:
    """`evaluation@base` → `evaluation/base`, since Dagster's keys are paths."""
    return AssetKey(address.split("@"))


def stage_asset(stage: PipelineStage) -> AssetsDefinition:
    @asset(
        key=asset_key(stage.address),
        deps=[asset_key(each) for each in stage.upstream],
        description=stage.description,
        group_name=stage.meta["group"],
        kinds=set(stage.meta["kinds"]),
        pool=stage.meta.get("pool"),
    )
    def materialize(context: AssetExecutionContext) -> None:
        context.log.info("dvc repro --single-item %s", stage.address)
        try:
            reproduce(stage.address)
        except StageFailed as failed:
            raise Failure(str(failed)) from None

    return materialize
