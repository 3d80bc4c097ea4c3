"""What is run together, and when: jobs over the assets of dvc.yaml, and the weekly retraining."""

from collections.abc import Iterator
from dataclasses import dataclass

from dagster import AssetSelection, ScheduleDefinition

from assets.params import Orchestration
from orchestration.record import asset_key
from orchestration.stage_assets import PipelineStage

PUBLISHED = "serving"  # the group of what people use: only full_pipeline and publish touch it
RETRAIN = "retrain"


@dataclass(frozen=True)
class Job:
    name: str
    description: str
    selection: AssetSelection


def jobs_of(stages: list[PipelineStage]) -> list[Job]:
    """full_pipeline, retrain (all but publishing, so that no schedule changes anybody's table), evaluate_only and publish.

    A job that would have no stage is left out.
    """

    def job(name: str, description: str, wanted: list[PipelineStage]) -> Iterator[Job]:
        if wanted:
            yield Job(name, description, AssetSelection.assets(*(asset_key(stage.address) for stage in wanted)))

    return [
        *job("full_pipeline", "Everything, from the source to the table that people search. dvc skips what is up to date.", stages),
        *job(
            RETRAIN,
            "Read the source, curate, train, evaluate, judge and report. The published table stays as it is.",
            [stage for stage in stages if stage.meta["group"] != PUBLISHED],
        ),
        *job(
            "evaluate_only",
            "Measure the models that are there, judge them and report.",
            [stage for stage in stages if stage.meta["group"] == "evaluation"],
        ),
        *job(
            "publish",
            "Bring the table, and the graphs of its model, up to date with the chosen recipe, if the verdict allows it.",
            [stage for stage in stages if stage.meta["group"] == PUBLISHED],
        ),
    ]


def schedules_of(settings: Orchestration) -> list[ScheduleDefinition]:
    """Stopped until somebody turns it on in the UI, because training costs hours of a machine."""
    return [
        ScheduleDefinition(
            name="weekly_retrain",
            job_name=RETRAIN,
            cron_schedule=settings.retrain_cron,
            execution_timezone=settings.time_zone,
            description="Retrain regularly. Cron and time zone: section orchestration of params.yaml.",
        )
    ]
