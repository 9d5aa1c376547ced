"""What a search measures with: one model trained on the rows of one view and judged on its held-out rows, never
twice."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from stillhouse.errors import StillhouseError
from stillhouse.pipeline.context import RunContext
from stillhouse.pipeline.data import check_targets, fingerprint, make_splits
from stillhouse.pipeline.extra_rows import add_extra_rows
from stillhouse.pipeline.judging import judge
from stillhouse.pipeline.student import baseline_stage, check_method, student_stage
from stillhouse.pipeline.teacher import Teacher, teacher_stage
from stillhouse.plugins.registry import Registry
from stillhouse.progress import Silent, collect_warnings
from stillhouse.recipe.check import resolve
from stillhouse.recipe.resolved import ResolvedRecipe
from stillhouse.storage import digest, read_json, read_tensors, write_json
from stillhouse.tuning.views import View, check_untouched, make_views
from stillhouse.types import Head

Part = Literal["baseline", "teacher", "student"]


@dataclass(frozen=True)
class Work:
    """One measurement: a part of a recipe on one view, for one seed.

    Attributes:
        part: what is trained and judged; the student needs its teacher first.
        recipe: plain values, complete.
        view: position of the view.
        seed: of baseline and student.
    """

    part: Part
    recipe: Mapping[str, Any]
    view: int
    seed: int

    def key(self) -> str:
        """Equal for measurements that must give the same result: what does not concern the part is left out."""
        names = {"head", "dataset", "data_seed", "device"}
        names |= {"baseline": {"student", "method"}, "teacher": {"teacher"}}.get(self.part, set(self.recipe))
        concerned = {name: value for name, value in self.recipe.items() if name in names - IRRELEVANT}
        train = self.recipe.get("train", {})
        if self.part == "student":
            concerned["train"] = {name: value for name, value in train.items() if name != "baseline"}
        else:
            concerned["train"] = train.get(self.part) or train.get(TRAINS[self.part], {})
        seed = None if self.part == "teacher" else self.seed
        return digest({"part": self.part, "view": self.view, "seed": seed, "recipe": concerned})


KEPT_BYTES = 512 * 2**20
"""Of teachers that stay in memory, as they are on disk."""
IRRELEVANT = {"name", "summary", "seeds", "metrics", "controls", "evaluate", "search", "sizes", "train"}
TRAINS = {"baseline": "student", "teacher": "teacher"}


@dataclass(frozen=True)
class Result:
    """What a measurement found.

    Attributes:
        value: the head's primary metric of the held-out rows; None when it failed.
        metrics: all metrics of the held-out rows.
        seconds: it took.
        chosen_epoch: share of the epochs after which the best one came, in (0, 1]; None for an estimator.
        overfit: loss on the held-out rows over that on the rows that it learned from (teachers only).
        error: why it failed.
    """

    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    chosen_epoch: float | None = None
    overfit: float | None = None
    error: str = ""


@dataclass(frozen=True)
class _KeptTeacher:
    """A teacher in memory, what it predicts of validation and held-out rows, and its bytes on disk."""

    teacher: Teacher
    predictions: Mapping[str, Tensor]
    size: int


class Bench:
    """Rows, head and folder of a search, in one process.

    Args:
        resolved: the recipe that the search starts from.
        registry: the components.
        head: what judges.
        views: see `stillhouse.tuning.views`.
        folder: of the search; results are kept in ``measured/``, models only while they are trained.
        guard: what `check_untouched` found.
        data: fingerprint of the dataset.
    """

    def __init__(
        self,
        resolved: ResolvedRecipe,
        registry: Registry,
        head: Head,
        views: Sequence[View],
        folder: Path,
        guard: str = "",
        data: str = "",
    ) -> None:
        self.resolved, self.registry, self.head, self.views = resolved, registry, head, tuple(views)
        self.folder, self.guard, self.data = folder, guard, data
        self.unit = views[0].splits.info.unit
        self._fingerprints: dict[int, str] = {}
        self._teachers: dict[str, _KeptTeacher] = {}
        """The last one used at the end."""

    def _fingerprint(self, view: int) -> str:
        if view not in self._fingerprints:
            self._fingerprints[view] = fingerprint(self.views[view].splits)
        return self._fingerprints[view]

    def keep_first_draw(self) -> None:
        """Judge on the first draw of the folds alone."""
        self.views = tuple(view for view in self.views if view.draw == 0)

    def known(self, work: Work) -> Result | None:
        """The result, when it was measured before."""
        path = self.folder / "measured" / f"{work.key()}.json"
        return Result(**read_json(path)) if path.exists() else None

    def measure(self, work: Work) -> Result:
        """Train and judge, or read what is known. Whatever a recipe's parts do wrong is a result, too."""
        if (known := self.known(work)) is not None:
            return known
        folder = self.folder / "training" / work.key()
        began = time.monotonic()
        try:
            with collect_warnings():
                result = self._measure(work, folder)
        except StillhouseError as error:
            result = Result(None, error=str(error.what))
        result = replace(result, seconds=round(time.monotonic() - began, 3))
        write_json(self.folder / "measured" / f"{work.key()}.json", asdict(result))
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def unsuitable(self, recipe: Mapping[str, Any]) -> str:
        """Why parts of a recipe do not go together, as far as can be told without training; empty when they do."""
        try:
            with collect_warnings():
                check_method(self._context(Work("student", recipe, 0, 0), self.folder, with_extra=False))
        except StillhouseError as error:
            return str(error.what)
        return ""

    def _context(self, work: Work, folder: Path, *, with_extra: bool) -> RunContext:
        values = {**work.recipe, "seeds": [work.seed], "controls": [], "metrics": [], "sizes": None, "search": {}}
        resolved = replace(resolve(values, self.registry), base=self.resolved.base)
        splits = self.views[work.view].splits
        data, extra = self._fingerprint(work.view), None
        if with_extra:
            splits, extra = add_extra_rows(splits, resolved)
        context = RunContext(
            resolved, self.registry, folder, Silent(), splits, self.head, data, extra, store=self.folder / "teachers"
        )
        context.accelerator()
        return context

    def _measure(self, work: Work, folder: Path) -> Result:
        context = self._context(work, folder, with_extra=work.part == "student")
        if work.part == "teacher":
            teacher = teacher_stage(context)
            found = self._judged(context, folder / "teacher", "teacher/member-0")
            return replace(found, overfit=self._overfit(context, teacher))
        if work.part == "baseline":
            baseline_stage(context)
        else:
            check_method(context)
            student_stage(context, self._teacher(context, work))
        trained = f"{work.part}/seed-{work.seed}"
        return self._judged(context, folder / trained, trained)

    def _teacher(self, context: RunContext, work: Work) -> Teacher:
        """The teacher of a student. Estimators stay in memory for the next one: to read a forest takes longer than to
        fit the tree that learns from it. A method may train a network on, so that those are read anew."""
        key, folder = replace(work, part="teacher").key(), context.folder / "teacher"
        if key in self._teachers:
            kept = self._teachers[key] = self._teachers.pop(key)  # the last one used
            for name, prediction in kept.predictions.items():
                context.write_prediction(folder, name, prediction)
            return kept.teacher
        teacher = teacher_stage(context)
        size = sum(path.stat().st_size for path in folder.rglob("estimator.skops"))
        if not any(member.is_network or member.is_asked for member in teacher.members) and size <= KEPT_BYTES:
            while sum(kept.size for kept in self._teachers.values()) + size > KEPT_BYTES:
                del self._teachers[next(iter(self._teachers))]
            predictions = {
                name: read_tensors(folder / "predictions" / f"{name}.safetensors")["prediction"]
                for name in ("val", "test")
            }
            self._teachers[key] = _KeptTeacher(teacher, predictions, size)
        return teacher

    def _judged(self, context: RunContext, predicted: Path, trained: str) -> Result:
        metrics = judge(context, predicted, "test")  # the view's held-out rows
        value = metrics[self.head.primary]
        if not math.isfinite(value):
            return Result(None, error=f"{self.head.primary} is not finite")
        finite = {name: each for name, each in metrics.items() if math.isfinite(each)}
        return Result(value, finite, chosen_epoch=self._chosen_epoch(context.folder / trained / "history.jsonl"))

    def _chosen_epoch(self, path: Path) -> float | None:
        history = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
        values = [record["val"].get(self.head.primary, math.nan) for record in history]
        if not any(map(math.isfinite, values)):
            return None
        sign = 1 if self.head.higher_is_better else -1
        best = max(range(len(values)), key=lambda at: sign * values[at] if math.isfinite(values[at]) else -math.inf)
        return (best + 1) / len(values)

    def _overfit(self, context: RunContext, teacher: Teacher) -> float | None:
        if self.head.keeps_answers:
            return None  # whole predictions of all rows would be too large
        losses = {}
        for name in ("train", "test"):
            split = context.splits.named()[name]
            rows = context.judged_rows(split)
            losses[name] = float(self.head.hard_loss(teacher.predict(split, context.device), rows))
        return losses["test"] / losses["train"] if losses["train"] > 0 and math.isfinite(losses["test"]) else None


def make_bench(
    resolved: ResolvedRecipe, registry: Registry, folder: Path, *, folds: Any, seed: int, download: bool = False
) -> Bench:
    """Rows, views and head of a recipe; the test rows are checked against the views and then let go.

    Raises:
        StillhouseError: what is wrong with the rows.
    """
    splits = make_splits(resolved, download=download)
    head = resolved.head.component.load()(splits.info, **resolved.head.options)
    check_targets(splits, head, name=resolved.dataset.id)
    views = make_views(splits, head.kind, folds=folds, seed=seed)
    guard = check_untouched(views, splits.test)
    return Bench(
        resolved.for_rows(len(views[0].splits.train)), registry, head, views, folder, guard, fingerprint(splits)
    )
