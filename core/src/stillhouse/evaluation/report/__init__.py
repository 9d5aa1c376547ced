"""The report of a run: one self-contained HTML file, made from the files of the run folder alone."""

from __future__ import annotations

from stillhouse.evaluation.report.render import write_report

__all__ = ["write_report"]
