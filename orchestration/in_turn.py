"""How a run executes its steps: one after the other in the run's own process, after clearing up what killed runs left.

Dagster's in-process executor, but for that, and that a run which waits for a pool or a retry can be terminated too.
"""

from collections.abc import Iterator
from pathlib import Path

from dagster import DagsterEvent, Executor, ExecutorDefinition, InitExecutorContext, executor
from dagster._core.errors import raise_execution_interrupts
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import inprocess_execution_iterator

from orchestration.dvc_stage import alive
from orchestration.sensors import clear_up


def in_turn(checkout: Path) -> ExecutorDefinition:
    """dvc starts a process a stage anyway; one more each, as Dagster has it by default, would only cost seconds."""

    @executor(name="in_turn")
    def made(context: InitExecutorContext) -> Executor:
        return _InTurn(checkout)

    return made


class _InTurn(Executor):
    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout

    @property
    def retries(self) -> RetryMode:
        return RetryMode.ENABLED

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        clear_up(plan_context.instance, self.checkout)  # there may be no daemon whose sensor would
        with alive(plan_context.dagster_run.run_id, self.checkout):
            yield from ExecuteRunWithPlanIterable(
                execution_plan=plan_context.execution_plan,
                iterator=_interruptible,
                execution_context_manager=PlanExecutionContextManager(
                    job=plan_context.job,
                    retry_mode=plan_context.retry_mode,
                    execution_plan=plan_context.execution_plan,
                    run_config=plan_context.run_config,
                    dagster_run=plan_context.dagster_run,
                    instance=plan_context.instance,
                    raise_on_error=plan_context.raise_on_error,
                    output_capture=plan_context.output_capture,
                ),
            )


def _interruptible(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
    # of its own accord, Dagster minds an interruption only within a step
    with raise_execution_interrupts():
        yield from inprocess_execution_iterator(job_context, execution_plan)
