"""The job `rollback`: what `make rollback` does, from Dagster's pages. It waits for no stage: the command refuses while one publishes."""

import subprocess
import sys
from pathlib import Path

from dagster import AssetObservation, Failure, Field, JobDefinition, MetadataValue, Noneable, OpExecutionContext, job, op

from orchestration.record import asset_key


def rollback_job(checkout: Path) -> JobDefinition:
    """One op, whose config says where to: `version`, a tag or number of `make versions`, or null for the publish before this one."""

    @op(
        description="Make an earlier publish of the table the visible one again. Rows, vectors and answers are those of that time.",
        config_schema={"version": Field(Noneable(str), default_value=None, description="publish-0007, champion, candidate or a number.")},
        tags={"kind": "lancedb"},
    )
    def roll_back(context: OpExecutionContext) -> None:
        wanted = context.op_config["version"]
        done = subprocess.run(
            [sys.executable, "-m", "assets.commands.rollback", *([wanted] if wanted else [])],
            cwd=checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Failure(done.stderr.strip().removeprefix("error: "), allow_retries=False)
        context.log.info(done.stdout.strip())
        context.log_event(AssetObservation(asset_key("search_table"), metadata={"rolled back": MetadataValue.text(done.stdout.strip())}))

    @job(name="rollback", description="Go back to an earlier publish of the table, such as `publish-0007` or `champion`.")
    def rollback() -> None:
        roll_back()

    return rollback
