"""Checks that let a method train a small network through the stages of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard
from unittest.mock import patch

import torch
from torch import Tensor

from stillhouse.errors import IncompatibleError, MissingDependencyError, OptionError, PluginError, StillhouseError
from stillhouse.kinds import OutputKind
from stillhouse.methods import Method
from stillhouse.pipeline import run
from stillhouse.pipeline.student import TEACHER_CHANGED
from stillhouse.plugins.checks import Planned, Skipped, label
from stillhouse.plugins.options import options_of, validate_options
from stillhouse.plugins.registry import Component
from stillhouse.plugins.specs import MethodSpec
from stillhouse.progress import Reporter, Silent
from stillhouse.storage import read_tensors
from stillhouse.testing.isolation import offline, private_store
from stillhouse.testing.workbench import SYNTHETIC, Workbench

FIRST_KINDS = (OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.REGRESSION)
"""Output kinds that a method is tried on where it serves them; else the first that it serves."""
INTERRUPTIONS = 8
"""How often a training is interrupted at most, at one epoch after the other."""
MODEL = "model.safetensors"
NETWORK: dict[str, Any] = {"use": "core/mlp", "hidden": [8]}
"""The teacher, and other networks that a method wants beside the student."""
WRITER: dict[str, Any] = {
    "use": "core/hf-seq2seq",
    "config": {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
}
"""Teacher and student of a method that has models write."""
TAPPED = {"use": "core/hints", "student": "backbone", "teacher": "backbone"}
"""A soft loss between features of two such networks."""


def plan_method(bench: Workbench, component: Component) -> Iterator[Planned]:
    """``builds``, ``trains``, ``teacher-untouched``, ``same-seed`` and ``resumes``."""
    methods = _Methods(bench, component)
    where = label(component)
    yield Planned(id=f"builds[{where}]", verify=methods.builds)
    yield Planned(id=f"trains[{where}]", verify=methods.trains)
    yield Planned(id=f"teacher-untouched[{where}]", verify=methods.teacher_untouched)
    yield Planned(id=f"same-seed[{where}]", verify=methods.same_seed)
    yield Planned(id=f"resumes[{where}]", verify=methods.resumes)


class Interrupted(Exception):
    """The training was stopped from outside."""


class _Interrupting(Silent):
    """Stops the student's training at each epoch once, before that epoch is kept."""

    def __init__(self) -> None:
        self.stopped: set[tuple[Any, ...]] = set()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Reporter`."""
        at = (record.get("phase"), record["epoch"])
        if record["stage"] == "student" and at not in self.stopped and len(self.stopped) < INTERRUPTIONS:
            self.stopped.add(at)
            raise Interrupted


class _Methods:
    def __init__(self, bench: Workbench, component: Component) -> None:
        self._bench, self._component = bench, component
        self._first: dict[str, Tensor] | Exception | None = None
        self._soft: list[Any] = ["soft"]
        spec = component.spec
        assert isinstance(spec, MethodSpec)
        self._spec = spec

    def builds(self) -> None:
        self._bench.require(self._component, "target", "shape", "options")
        method = self._component.load()(**validate_options(self._component, self._options()))
        if not isinstance(method, Method):
            raise PluginError(
                f"the target made {type(method).__name__}, not a stillhouse.methods.Method",
                where=self._spec.target,
                fix="derive the class from stillhouse.methods.Method",
            )

    def teacher_untouched(self) -> None:
        first = self._trained()
        if _is_teacher_changed(first):
            raise first
        if isinstance(first, Exception):
            raise Skipped(f"pointless while trains[{label(self._component)}] fails")

    def trains(self) -> str:
        first = self._trained()
        if _is_teacher_changed(first):
            raise Skipped(f"pointless while teacher-untouched[{label(self._component)}] fails")
        if isinstance(first, Exception):
            raise first
        return f"{len(first)} tensors of weights"

    def same_seed(self) -> None:
        self._bench.require(self._component, "builds", "teacher-untouched", "trains")
        with private_store() as folder:
            self._run(folder / "run", "student")
            self._compare(folder / "run", "two runs with the same seeds end with different weights")

    def resumes(self) -> str:
        if not self._spec.resumes:
            raise Skipped("its spec says resumes=False")
        self._bench.require(self._component, "builds", "teacher-untouched", "trains", "same-seed")
        reporter = _Interrupting()
        # As if every epoch took so long that a checkpoint is due.
        with private_store() as folder, patch("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0):
            while True:
                try:
                    self._run(folder / "run", "student", reporter)
                    break
                except Interrupted:
                    continue
            self._compare(folder / "run", "a run that was interrupted and went on ends with other weights")
        return f"interrupted {len(reporter.stopped)} times"

    def _trained(self) -> dict[str, Tensor] | Exception:
        """Weights of the student of a whole run, or what went wrong; tried once."""
        if self._first is None:
            self._bench.require(self._component, "builds")
            self._first = self._attempt()
            if isinstance(self._first, IncompatibleError) and self._spec.taps:
                self._soft = ["soft", TAPPED]
                tapped = self._attempt()
                if not isinstance(tapped, IncompatibleError):
                    self._first = tapped
        if isinstance(self._first, MissingDependencyError):  # an optional package, as of a target
            raise Skipped(self._first.what, self._first.fix)
        return self._first

    def _attempt(self) -> dict[str, Tensor] | Exception:
        try:
            with private_store() as folder:
                return self._train(folder / "run")
        except Skipped:
            raise
        except Exception as error:
            return error

    def _options(self) -> dict[str, Any]:
        """Options that stand for the defaults; students that must be named are small networks."""
        given = dict(self._bench.given(self._component) or {})
        required = [each.name for each in options_of(self._component.load()) if each.required]
        for name in required:
            if name in self._spec.students and name not in given:
                given[name] = [NETWORK]
                try:
                    validate_options(self._component, given)
                except OptionError:
                    given[name] = NETWORK
        return given

    def _train(self, folder: Path) -> dict[str, Tensor]:
        self._run(folder, "student")
        weights, baseline = (read_tensors(folder / role / "seed-0" / MODEL) for role in ("student", "baseline"))
        shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (weights, baseline)]
        if shapes[0] != shapes[1]:
            odd = sorted(name for name in shapes[0] | shapes[1] if shapes[0].get(name) != shapes[1].get(name))
            raise PluginError(
                f"the finished student differs from the baseline in '{odd[0]}': "
                f"{shapes[0].get(odd[0], 'absent')} and {shapes[1].get(odd[0], 'absent')}",
                where=self._spec.target,
                fix="change the architecture in build() or finish(), which the baseline shares, not in train()",
            )
        prediction = read_tensors(folder / "student" / "seed-0" / "predictions" / "test.safetensors")["prediction"]
        if not bool(prediction.isfinite().all()):
            raise PluginError(
                "the student's predictions of the test rows are not finite",
                where=self._spec.target,
                fix="look for a loss that grows without bound, or weights that were never set",
            )
        self._run(folder, "evaluate")  # the method's own results, too
        return weights

    def _run(self, folder: Path, stop_after: str, reporter: Reporter | None = None) -> None:
        with offline():
            run(
                self._recipe(),
                out=folder,
                stop_after=stop_after,
                download=False,
                manager=self._bench.manager,
                reporter=reporter,
            )

    def _compare(self, folder: Path, problem: str) -> None:
        first, weights = self._trained(), read_tensors(folder / "student" / "seed-0" / MODEL)
        assert not isinstance(first, Exception)
        for name, tensor in first.items():
            if not torch.equal(tensor, weights[name]):
                raise PluginError(
                    f"{problem}: '{name}'",
                    where=self._spec.target,
                    fix="draw what is random from generators seeded with context.seed or context.derived_seed(name), "
                    "and compute what follows a phase from the weights that it left",
                )

    def _recipe(self) -> dict[str, Any]:
        """A run of seconds that the method serves by its spec."""
        kinds = self._spec.kinds
        kind = next((each for each in FIRST_KINDS if not kinds or each in kinds), None) or kinds[0]
        if "writes" in self._spec.tags:
            return self._run_of(
                head={"use": "core/generation", "max_tokens": 8},
                dataset={"use": "core/synthetic-pairs", "rows": 80},
                teacher=WRITER,
                student=WRITER,
            )
        several = [{**NETWORK, "seed": 0}, {**NETWORK, "seed": 1}]
        return self._run_of(
            head=f"core/{kind}",
            dataset={
                "use": SYNTHETIC,
                "kind": str(kind),
                "rows": 160,
                "unlabelled": 48,
                "groups": 20 if "groups" in self._spec.needs else 0,
                "times": True,
            },
            teacher={"members": several} if self._spec.several_teachers else NETWORK,
            student={"use": "core/mlp", "hidden": [4]},
        )

    def _run_of(self, **parts: Any) -> dict[str, Any]:
        return {
            "name": "method",
            **parts,
            "method": {"use": self._component.id, **self._options()},
            "objectives": {"soft": self._soft},
            "train": {
                "teacher": {"epochs": 1, "batch_size": 32},
                "student": {"epochs": 2, "batch_size": 32, "lr": 0.01},
            },
            "evaluate": {"latency_samples": 5, "throughput_batch": 8},
            "seeds": [0],
            "device": "cpu",
        }


def _is_teacher_changed(first: dict[str, Tensor] | Exception) -> TypeGuard[StillhouseError]:
    return isinstance(first, StillhouseError) and first.what == TEACHER_CHANGED
