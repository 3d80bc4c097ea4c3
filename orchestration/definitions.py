"""What Dagster loads: `dagster dev -m orchestration.definitions`, or `make ui`. Fast to import: no stage's code, no torch."""

from dagster import Definitions

from orchestration.dvc_stage import CHECKOUT
from orchestration.stage_assets import read_pipeline, stage_asset

defs = Definitions(assets=[stage_asset(stage) for stage in read_pipeline(CHECKOUT)])
