"""What Dagster loads: `dagster dev -m orchestration.definitions`, or `make ui`. Fast to import: no stage's code, no torch."""

from datetime import timedelta
from functools import partial
from pathlib import Path

from dagster import Backoff, Definitions, Jitter, RetryPolicy, define_asset_job

from assets.params import read_params
from orchestration.asset_checks import checks_of, evaluate, report_failed_expectations
from orchestration.dvc_stage import CHECKOUT
from orchestration.in_turn import in_turn
from orchestration.metadata import describe
from orchestration.rollback import rollback_job
from orchestration.schedules import jobs_of, schedules_of
from orchestration.sensors import dvc_lock_sensor, new_images_sensor, run_failure_hook
from orchestration.stage_assets import outside_assets, read_pipeline, stage_asset


def define(checkout: Path) -> Definitions:
    """Everything that Dagster shows of the pipeline in `checkout`."""
    settings = read_params(checkout / "params.yaml")[0].orchestration
    stages = read_pipeline(checkout)
    shown, judge = partial(describe, checkout), partial(evaluate, checkout, settings)
    retries = RetryPolicy(
        max_retries=settings.retries, delay=settings.retry_delay_seconds, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS
    )
    return Definitions(
        assets=[
            *outside_assets(stages),
            *(
                stage_asset(
                    stage,
                    checkout,
                    shown,
                    judge,
                    retries,
                    freshness=timedelta(days=settings.stale_after_days) if stage.address in ("report", "search_table") else None,
                    on_failure=partial(report_failed_expectations, checkout) if stage.address == "curated_images" else None,
                )
                for stage in stages
            ),
        ],
        asset_checks=checks_of(stages, checkout, settings),
        jobs=[
            *(define_asset_job(job.name, job.selection, description=job.description) for job in jobs_of(stages)),
            rollback_job(checkout),
        ],
        schedules=schedules_of(settings),
        sensors=[
            dvc_lock_sensor(checkout, shown, judge),
            new_images_sensor(checkout, settings),
            run_failure_hook(settings),
        ],
        executor=in_turn(checkout),
    )


defs = define(CHECKOUT)
