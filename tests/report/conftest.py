"""The run that the report is drawn from."""

from tests.measured_run import finished_run, inputs, promotion, report, settings

__all__ = ["finished_run", "inputs", "promotion", "report", "settings"]
