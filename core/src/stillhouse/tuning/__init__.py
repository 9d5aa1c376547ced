"""``stillhouse tune``: a search, on validation rows only, for a distillation that helps."""

from __future__ import annotations

from stillhouse.tuning.search import TuneResult, tune

__all__ = ["TuneResult", "tune"]
