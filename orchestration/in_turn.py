"""How a run executes its steps: one after the other in the run's own process, after clearing up what killed runs left.

This is Dagster's in-process executor. Added is that a run which waits for a pool or for a retry can be terminated too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster import (
    DagsterEvent,
    Executor,
    ExecutorDefinition,
    InitExecutorContext,
    executor,
    in_process_executor,
    raise_execution_interrupts,
)

from orchestration.dvc_stage import alive
from orchestration.sensors import clear_up


def in_turn(checkout: Path) -> ExecutorDefinition:
    """dvc starts a process for each stage; Dagster's default would start one more for each, which only costs seconds."""
    make = in_process_executor.executor_creation_fn
    assert make is not None

    @executor(name="in_turn")
    def made(context: InitExecutorContext) -> Executor:
        return _InTurn(make(context._replace(executor_config={"retries": {"enabled": {}}})), checkout)

    return made


class _InTurn(Executor):
    def __init__(self, inner: Executor, checkout: Path) -> None:
        self.inner = inner
        self.checkout = checkout

    @property
    def retries(self) -> Any:
        return self.inner.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[DagsterEvent]:
        clear_up(plan_context.instance, self.checkout)  # there may be no daemon whose sensor would
        with alive(plan_context.dagster_run.run_id, self.checkout):
            yield from _interruptible(self.inner.execute(plan_context, execution_plan))


def _interruptible(events: Iterator[DagsterEvent]) -> Iterator[DagsterEvent]:
    """The in-process executor notices an interruption only within a step. Here one ends its waiting, too."""
    while True:
        with raise_execution_interrupts():
            event = next(events, None)
        if event is None:
            return
        yield event
