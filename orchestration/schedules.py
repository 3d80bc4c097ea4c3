"""What is run together, and when: jobs over the assets of dvc.yaml, and the weekly retraining."""

from dagster import AssetSelection, JobDefinition, ScheduleDefinition, define_asset_job
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from assets.params import Orchestration
from orchestration.record import asset_key
from orchestration.stage_assets import PipelineStage

Job = JobDefinition | UnresolvedAssetJobDefinition
PUBLISHED = "serving"  # the group of what people use: only full_pipeline and publish touch it


def jobs_of(stages: list[PipelineStage]) -> dict[str, Job]:
    """full_pipeline, retrain (all but publishing, so that nobody's table changes by a schedule), evaluate_only and publish."""

    def job(name: str, description: str, wanted: list[PipelineStage]) -> list[Job]:
        selection = AssetSelection.assets(*(asset_key(stage.address) for stage in wanted))
        return [define_asset_job(name, selection=selection, description=description)] if wanted else []

    found = [
        *job("full_pipeline", "Everything, from the source to the table that people search. dvc skips what is up to date.", stages),
        *job(
            "retrain",
            "Read the source, curate, train and evaluate, up to the report and its verdict; the published table stays as it is.",
            [stage for stage in stages if stage.meta["group"] != PUBLISHED],
        ),
        *job(
            "evaluate_only",
            "Measure the models that there are, and report.",
            [stage for stage in stages if stage.meta["group"] == "evaluation"],
        ),
        *job(
            "publish",
            "Bring the table up to date with the chosen recipe, if the report's verdict allows it.",
            [stage for stage in stages if stage.meta["group"] == PUBLISHED],
        ),
    ]
    return {each.name: each for each in found}


def schedules_of(jobs: dict[str, Job], settings: Orchestration) -> list[ScheduleDefinition]:
    """Stopped until somebody turns it on in the UI: training costs hours of a machine."""
    return [
        ScheduleDefinition(
            name="weekly_retrain",
            job=jobs["retrain"],
            cron_schedule=settings.retrain_cron,
            execution_timezone=settings.time_zone,
            description="Retrain regularly. Cron and time zone: section orchestration of params.yaml.",
        )
    ]
