"""What the report reads of a run folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from stillhouse.errors import RunFolderError
from stillhouse.storage import RULES, read_object, read_tensors
from stillhouse.types import Batch

MODELS = ("teacher", "baseline", "student")
SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """The files of a run folder, parsed.

    Args:
        folder: the run folder.
        summary: ``summary.json``.
        manifest: ``manifest.json``; empty when missing.
        epochs: lines of ``metrics.jsonl``.
        recipe: text of ``recipe.yaml``; empty when missing.
    """

    folder: Path
    summary: dict[str, Any]
    manifest: dict[str, Any]
    epochs: list[dict[str, Any]]
    recipe: str

    @property
    def primary(self) -> str:
        """Name of the primary metric."""
        return str(self.summary["primary_metric"]["name"])

    @property
    def higher_is_better(self) -> bool:
        """Direction of the primary metric."""
        return bool(self.summary["primary_metric"]["higher_is_better"])

    @property
    def unit(self) -> str:
        """Unit of the primary metric; empty for a share."""
        return str(self.summary["dataset"].get("unit") or "")

    @property
    def measure(self) -> str:
        """Primary metric with its unit, for axes."""
        return f"{self.primary} ({self.unit})" if self.unit else self.primary

    def curves(self) -> dict[str, list[list[tuple[int, float]]]]:
        """By stage, a curve of (epoch, primary validation metric) for each seed or member."""
        found: dict[str, dict[Any, list[tuple[int, float]]]] = {}
        for epoch, line in self._laid_out():
            value = line.get("val", {}).get(self.primary)
            if value is not None:
                found.setdefault(line["stage"], {}).setdefault(_model(line), []).append((epoch, float(value)))
        return {stage: [sorted(curve) for curve in curves.values()] for stage, curves in found.items()}

    def shares(self) -> dict[str, list[tuple[int, float]]]:
        """By term of the student's loss, (epoch, share of the weighted total), averaged over seeds."""
        gathered: dict[str, dict[int, list[float]]] = {}
        for epoch, line in self._laid_out():
            terms = line.get("train", {}).get("terms", {}) if line["stage"] == "student" else {}
            weighted = {name: abs(float(term["weighted"])) for name, term in terms.items()}
            total = sum(weighted.values())
            for name, value in weighted.items():
                if total > 0:
                    gathered.setdefault(name, {}).setdefault(epoch, []).append(value / total)
        return {
            name: [(epoch, sum(values) / len(values)) for epoch, values in sorted(by_epoch.items())]
            for name, by_epoch in gathered.items()
        }

    def _laid_out(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every line with its epoch, counted on from phase to phase of a model that is trained in several fits."""
        seen: dict[Any, dict[str, int]] = {}
        for line in self.epochs:
            phases = seen.setdefault((line["stage"], line.get("control"), *_model(line)), {})
            phase, epoch = line.get("phase", ""), int(line["epoch"])
            before = sum(epochs for name, epochs in phases.items() if name != phase)
            phases[phase] = epoch + 1
            yield before + epoch, line

    def predictions(self) -> tuple[dict[str, Tensor], Batch]:
        """Test predictions by model (the first seed of baseline and student) and the rows that all of them
        judge.

        Raises:
            RunFolderError: a file is corrupt, or the models judged other rows.
        """
        found: dict[str, Tensor] = {}
        rows: Batch = {}
        for name, path in self._prediction_files():
            if not path.exists():
                continue
            entries = read_tensors(path)
            prediction = entries.pop("prediction")
            if rows and "index" in rows and not bool((rows["index"] == entries["index"]).all()):
                raise RunFolderError(
                    "the models' predictions are of other rows than each other",
                    where=str(path),
                    fix="remove the run folder's stages and run again",
                )
            found[name], rows = prediction, entries
        return found, rows

    def rules(self) -> str:
        """Rules of the student (its first seed), for a model that a person can read; else empty."""
        return _text(self._model_folder("student") / RULES)

    def _prediction_files(self) -> Iterator[tuple[str, Path]]:
        for name in MODELS:
            yield name, self._model_folder(name) / "predictions" / "test.safetensors"

    def _model_folder(self, name: str) -> Path:
        seeds = self.summary.get(name, {}).get("seeds")
        return self.folder / name / f"seed-{seeds[0]}" if seeds else self.folder / name


def _model(line: dict[str, Any]) -> tuple[Any, Any]:
    return line.get("member"), line.get("seed")


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        RunFolderError: there is no summary, it has another schema, or a file is not JSON.
    """
    folder = Path(folder)
    summary = read_object(folder / "summary.json")
    if summary.get("schema") != SCHEMA:
        raise RunFolderError(
            f"summary.json has schema {summary.get('schema')}, and this version reads {SCHEMA}",
            where=str(folder / "summary.json"),
            fix="use the version of stillhouse that made the run",
        )
    return Run(
        folder=folder,
        summary=summary,
        manifest=read_object(folder / "manifest.json") if (folder / "manifest.json").exists() else {},
        epochs=list(_lines(folder / "metrics.jsonl")),
        recipe=_text(folder / "recipe.yaml"),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunFolderError(
                    f"line {number} of metrics.jsonl is not JSON", where=str(path), fix="start the run again"
                ) from error
