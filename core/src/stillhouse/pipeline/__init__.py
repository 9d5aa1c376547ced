"""A run: the stages in order, each resumable, each with its folder."""

from stillhouse.pipeline.runner import RunResult, run
from stillhouse.pipeline.stages import STAGES

__all__ = ["STAGES", "RunResult", "run"]
