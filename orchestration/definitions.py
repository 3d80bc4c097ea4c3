"""What Dagster loads: `dagster dev -m orchestration.definitions`, or `make ui`. Fast to import: no stage's code, no torch."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from dagster import Backoff, DagsterEvent, Definitions, Executor, ExecutorDefinition, InitExecutorContext, Jitter, RetryPolicy, executor
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from assets.params import read_params
from orchestration.asset_checks import checks_of, evaluate, report_failed_expectations
from orchestration.dvc_stage import CHECKOUT, alive
from orchestration.metadata import describe
from orchestration.schedules import jobs_of, schedules_of
from orchestration.sensors import clear_up, dvc_lock_sensor, new_images_sensor, run_failure_hook
from orchestration.stage_assets import outside_assets, read_pipeline, stage_asset


def define(checkout: Path) -> Definitions:
    """Everything that Dagster shows of the pipeline in `checkout`."""
    settings = read_params(checkout / "params.yaml")[0].orchestration
    stages = read_pipeline(checkout)
    jobs = jobs_of(stages)
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
        jobs=list(jobs.values()),
        schedules=schedules_of(jobs, settings),
        sensors=[
            dvc_lock_sensor(checkout, shown, judge),
            new_images_sensor(checkout, jobs["retrain"], settings),
            run_failure_hook(settings),
        ],
        executor=_executor_of(checkout),
    )


def _executor_of(checkout: Path) -> ExecutorDefinition:
    class InTurn(InProcessExecutor):  # dvc starts a process a stage anyway; one more each would only cost seconds
        def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
            clear_up(plan_context.instance, checkout)  # no daemon may be there to free what a killed run held
            with alive(plan_context.dagster_run.run_id, checkout):
                yield from super().execute(plan_context, execution_plan)

    @executor(name="in_turn")
    def in_turn(context: InitExecutorContext) -> Executor:
        return InTurn(RetryMode.ENABLED)

    return in_turn


defs = define(CHECKOUT)
