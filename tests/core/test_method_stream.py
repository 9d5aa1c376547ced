"""core/stream: chunks are predicted, scored, then learned, and nothing of the future is known before."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import stillhouse
from stillhouse.components import datasets
from stillhouse.errors import IncompatibleError, MissingDependencyError
from stillhouse.methods import MethodContext
from stillhouse.methods.arrivals import Arrivals, Reservoir, by_class, by_time, refuse_early_labels, warm_chunks
from stillhouse.methods.drift import DriftAlarm
from stillhouse.methods.passage import Remembering
from stillhouse.methods.transfer import transfer
from stillhouse.pipeline import RunResult
from stillhouse.pipeline.checking import check
from stillhouse.types import DataContext, Splits, TensorSplit

TIMED = ("dataset.rows=400", "dataset.unlabelled=0", "dataset.times=true", "train.student.epochs=2")
STREAM = {"use": "core/stream", "chunks": 8, "warm": 0.3, "epochs": 2, "replay": 20}
has_river = importlib.util.find_spec("river") is not None


def facts(result: RunResult) -> dict[str, Any]:
    found: dict[str, Any] = result.summary["method_facts"]["per_seed"][0]
    return found


# Chunks --------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 30), min_size=4, max_size=60),
    st.integers(2, 10),
    st.one_of(st.none(), st.floats(0.5, 12)),
)
def test_chunks_have_every_row_once_in_order_of_time_and_never_part_equal_times(
    times: list[int], chunks: int, span: float | None
) -> None:
    found = by_time(times, chunks, span)
    assert sorted(itertools.chain.from_iterable(found)) == list(range(len(times)))
    assert all(len(chunk) >= 2 for chunk in found)
    for before, after in itertools.pairwise(found):
        assert max(times[row] for row in before) < min(times[row] for row in after)


def test_chunks_are_of_equal_numbers_of_rows_spans_or_classes() -> None:
    assert by_time([5, 4, 3, 2, 1, 0], 3, None) == [[5, 4], [3, 2], [1, 0]]
    assert by_time([0.0, 1.0, 6.9, 7.0, 8.0, 30.0, 31.0], 2, 7.0) == [[0, 1, 2], [3, 4], [5, 6]]
    assert by_class(np.array([2, 0, 2, 0, 1])) == [[1, 3], [4], [0, 2]]
    assert [warm_chunks([[0, 1], [2, 3], [4, 5]], share) for share in (0.1, 1 / 3, 0.34, 0.9)] == [1, 1, 2, 3]


def test_a_reservoir_is_a_uniform_sample_of_all_that_passed() -> None:
    counts = np.zeros(20)
    for seed in range(2000):
        sample = Reservoir(5, seed)
        sample.add(range(12))
        sample.add(range(12, 20))
        assert len(set(sample.rows)) == 5
        counts[sample.rows] += 1
    assert counts / 2000 == pytest.approx(np.full(20, 0.25), abs=0.045)
    empty = Reservoir(0, 0)
    empty.add(range(9))
    assert empty.rows == []


def test_labels_of_forecasts_are_not_learned_before_they_are_known() -> None:
    times = [float(each) for each in range(12)]
    rows = TensorSplit({"x": torch.zeros(12, 1)}, times=times, until=[each + 2 for each in times])
    chunks = by_time(times, 4, None)
    refuse_early_labels(Arrivals(chunks, 1, 1), rows)
    with pytest.raises(IncompatibleError, match="labels of chunk 1 are known at time 4, and chunk 2"):
        refuse_early_labels(Arrivals(chunks, 1, 0), rows)


def test_synthetic_rows_turn_in_the_middle_of_the_training_rows(tmp_path: Path) -> None:
    context = DataContext(root=tmp_path, base=tmp_path)
    plain, drifted = datasets.synthetic(context, rows=200), datasets.synthetic(context, rows=200, drift=0.5)
    half = len(plain.train) // 2
    one, two = (splits.train.columns(["x"])["x"] for splits in (plain, drifted))
    assert torch.equal(one[:half], two[:half])
    assert torch.allclose(two[half:, 0::2], -one[half:, 1::2], atol=1e-6)  # a quarter turn
    assert torch.allclose(two[half:, 1::2], one[half:, 0::2], atol=1e-6)
    assert torch.equal(plain.test.columns(["target"])["target"], drifted.test.columns(["target"])["target"])
    assert plain.train.times is None
    times = [splits.times for splits in drifted.named().values()]
    assert list(itertools.chain(*times)) == [float(each) for each in range(200)]


# Measures ------------------------------------------------------------------------------------------------------------


def test_transfer_and_forgetting_by_hand() -> None:
    table = [[0.9, 0.2, 0.0], [0.95, 0.8, 0.1], [0.5, 0.6, 0.7]]
    found = transfer(table, [0.1, 0.1, 0.3])
    assert found["mean_accuracy"] == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert found["backward_transfer"] == pytest.approx(((0.5 - 0.9) + (0.6 - 0.8)) / 2)
    assert found["forward_transfer"] == pytest.approx(((0.2 - 0.1) + (0.1 - 0.3)) / 2)
    assert found["forgetting"] == pytest.approx(((0.95 - 0.5) + (0.8 - 0.6)) / 2)
    assert transfer([[0.5]], [0.1]) == {"mean_accuracy": 0.5}


def losses(step: float) -> list[float]:
    random = np.random.default_rng(0)
    return [*random.normal(1.0, 0.1, 400), *random.normal(1.0 + step, 0.1, 400)]


@pytest.mark.skipif(not has_river, reason="needs stillhouse[stream]")
@pytest.mark.parametrize("name", ["adwin", "page-hinkley", "kswin"])
def test_drift_is_told_soon_after_the_loss_rises_and_not_when_it_falls(name: Any) -> None:
    risen = DriftAlarm(name, 0)(losses(0.8))
    assert any(400 <= at < 520 for at in risen)
    assert DriftAlarm(name, 0)(losses(0.8)) == risen
    one = DriftAlarm(name, 0)
    assert one(losses(0.8)[:300]) + [300 + at for at in one(losses(0.8)[300:])] == risen
    assert not any(400 <= at < 520 for at in DriftAlarm(name, 0)(losses(-0.8)))
    assert DriftAlarm("none", 0)(losses(0.8)) == []


def test_a_detector_without_river_is_an_error_before_anything_is_trained(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "river" else genuine(name))
    with pytest.raises(MissingDependencyError, match="river") as caught:
        distil({**STREAM, "drift": "adwin"}, *TIMED)
    assert "stillhouse[stream]" in caught.value.fix


# A stream ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def changed_rows(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes entries of the training rows from a position on."""
    genuine = datasets.synthetic

    def change(entry: str, first: int, last: int | None = None) -> None:
        @functools.wraps(genuine)
        def made(*args: Any, **options: Any) -> Splits:
            splits = genuine(*args, **options)
            columns = dict(splits.train.columns())
            columns[entry] = columns[entry].clone()
            part = columns[entry][first:last]
            columns[entry][first:last] = (part + 1) % 4 if entry == "target" else -part
            return replace(splits, train=TensorSplit(columns, times=splits.train.times))

        monkeypatch.setattr(datasets, "synthetic", made)

    return change


@pytest.mark.parametrize("delay", [0, 2])
def test_no_chunk_is_predicted_with_labels_that_had_not_arrived(
    distil: Callable[..., Any], changed_rows: Callable[..., None], tmp_path: Path, delay: int
) -> None:
    method = {**STREAM, "delay": delay, "teacher": "refit", "refit_every": 1, "last_weight": 0.5}
    plain = facts(distil(method, *TIMED, out="plain"))["over_time"]
    assert plain["chunk"] == list(range(4 + delay, 9))
    # 240 training rows in 8 chunks: the labels of chunk 5 are others.
    changed_rows("target", 120, 150)
    other = facts(distil(method, *TIMED, out="other"))["over_time"]
    for name in ("student", "baseline", "teacher"):
        by_chunk = dict(zip(plain["chunk"], zip(plain[name], other[name], strict=True), strict=True))
        for chunk, (one, two) in by_chunk.items():
            if chunk != 5 and chunk <= 5 + delay:
                assert one == two, (name, chunk)
    for role in ("student", "baseline"):
        one, two = (tmp_path / run / role / "seed-0" / "model.safetensors" for run in ("plain", "other"))
        assert one.read_bytes() != two.read_bytes()


def test_chunks_to_come_change_nothing_before(distil: Callable[..., Any], changed_rows: Callable[..., None]) -> None:
    plain = facts(distil(STREAM, *TIMED, out="plain"))["over_time"]
    changed_rows("x", 210)
    other = facts(distil(STREAM, *TIMED, out="other"))["over_time"]
    for name in ("student", "baseline", "teacher"):
        assert plain[name][:-1] == other[name][:-1]
        assert plain[name][-1] != other[name][-1]


def test_the_baseline_goes_through_the_stream_without_the_teacher(distil: Callable[..., Any]) -> None:
    one = distil(STREAM, *TIMED, out="one")
    two = distil({**STREAM, "last_weight": 0.5}, *TIMED, "teacher.hidden=[4]", out="two")
    offline = distil("core/offline", *TIMED, out="offline")
    weights = [load_file(each.folder / "baseline" / "seed-0" / "model.safetensors") for each in (one, two, offline)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(not torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert facts(one)["over_time"]["baseline"] == facts(two)["over_time"]["baseline"]
    assert facts(one)["over_time"]["student"] != facts(two)["over_time"]["student"]
    table = {(each["name"], each["model"]) for each in one.summary["method_facts"]["table"]}
    assert {("prequential", name) for name in ("teacher", "baseline", "student")} <= table
    assert not (one.folder / "teacher" / "past").exists()


def test_the_score_over_all_rows_is_that_of_the_weights_before_each_chunk(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right: list[int] = []
    genuine = MethodContext.fit

    def watched(self: MethodContext, learner: Any, *, phase: str = "", **given: Any) -> Any:
        if phase.startswith("chunk") and self.label.startswith("student"):
            number = int(phase.removeprefix("chunk-")) - 1
            rows = self.splits.train.batch(range(30 * number, 30 * (number + 1)))
            with torch.no_grad():
                right.append(int((learner.student.eval()(x=rows["x"]).argmax(1) == rows["target"]).sum()))
        return genuine(self, learner, phase=phase, **given)

    monkeypatch.setattr(MethodContext, "fit", watched)
    found = facts(distil(STREAM, *TIMED))
    assert len(right) == found["chunks"] == 5
    assert found["prequential"]["student"] == pytest.approx(sum(right) / 150)
    assert found["over_time"]["student"] == pytest.approx([each / 30 for each in right])


def test_the_last_student_is_a_teacher_of_all_rows_of_a_step(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []
    genuine = MethodContext.fit

    def watched(self: MethodContext, learner: Any, *, rows: Any = None, unlabelled: Any = None, **given: Any) -> Any:
        if isinstance(learner, Remembering):
            first, others = rows.batch(range(10)), unlabelled.batch(range(6))
            batch = {name: torch.cat([first[name], others[name]]) for name in first}
            learner.eval()
            with torch.no_grad():
                before = learner.student(x=batch["x"])
                next(learner.student.parameters()).mul_(1.1)  # so that it is not the last student any more
                now, teacher = learner.student(x=batch["x"]), learner.teacher(batch).prediction

                def soft(target: torch.Tensor, temperature: float) -> torch.Tensor:
                    one, two = (now / temperature).log_softmax(1), (target / temperature).softmax(1)
                    return F.kl_div(one, two, reduction="batchmean") * temperature**2

                hard = F.cross_entropy(now[:10], batch["target"][:10])
                by_hand = 0.1 * hard + 0.9 * soft(teacher, 2.0) + 0.7 * soft(before, 2.0)
                seen.append((float(learner(batch, 10)[0]), float(by_hand)))
                next(learner.student.parameters()).div_(1.1)
        return genuine(self, learner, rows=rows, unlabelled=unlabelled, **given)

    monkeypatch.setattr(MethodContext, "fit", watched)
    distil({**STREAM, "last_weight": 0.7, "delay": 1}, *TIMED)
    assert len(seen) == 4
    for found, by_hand in seen:
        assert found == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize("prior", ["core/decision-tree", "core/linear"])
def test_the_student_first_learns_what_a_simple_model_of_the_warm_rows_says(
    distil: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, prior: str
) -> None:
    seen: list[tuple[float, int]] = []
    genuine = MethodContext.fit

    def watched(self: MethodContext, learner: Any, *, phase: str = "", rows: Any = None, **given: Any) -> Any:
        if phase == "prior":
            batch = rows.batch(range(len(rows)))
            with torch.no_grad():
                now, simple = learner.student.eval()(x=batch["x"]), learner.teacher(batch).prediction
                one, two = (now / 2).log_softmax(1), (simple / 2).softmax(1)
                by_hand = float(F.kl_div(one, two, reduction="batchmean") * 4)
                assert float(learner(batch, len(rows))[0]) == pytest.approx(by_hand, rel=1e-4)
            right = (simple.argmax(1) == batch["target"]).double().mean()
            seen.append((float(right), len(rows)))
        return genuine(self, learner, phase=phase, rows=rows, **given)

    monkeypatch.setattr(MethodContext, "fit", watched)
    distil({**STREAM, "prior": prior}, *TIMED, "train.student.epochs=10", "train.student.lr=0.01")
    assert len(seen) == 1  # the student, not the baseline
    assert seen[0][0] > 0.4
    assert seen[0][1] == 90


def test_a_stream_that_stops_goes_on_to_the_same_bits(assert_resumes: Callable[..., Any]) -> None:
    method = {**STREAM, "chunks": 6, "delay": 1, "teacher": "refit", "refit_every": 1, "last_weight": 0.5}
    assert_resumes(method, ["warm", "chunk-4", "chunk-5", "chunk-6"], *TIMED)


@pytest.mark.skipif(not has_river, reason="needs stillhouse[stream]")
def test_a_teacher_is_trained_again_when_drift_is_told(tmp_path: Path) -> None:
    method = {"chunks": 40, "warm": 0.2, "delay": 1, "epochs": 2, "replay": 100, "teacher": "drift", "drift": "adwin"}
    changes = ["seeds=[0]", "teacher.n_estimators=10", "evaluate.latency_samples=5"]
    changes += [f"method.{name}={value}" for name, value in method.items()]
    found = facts(stillhouse.run("core/stream-demo", out=tmp_path, overrides=changes, stop_after="evaluate"))
    assert found["teacher_trainings"] == 1 + len({place["chunk"] for place in found["drift_points"]}) > 1
    # The rule changes at time 1800, in the middle of the training rows.
    assert all(1800 <= place["time"] < 2160 for place in found["drift_points"])
    assert {"chunk", "row", "time"} == set(found["drift_points"][0])


def test_class_by_class_forgetting_and_transfer_are_told(distil: Callable[..., Any]) -> None:
    method = {"use": "core/stream", "order": "classes", "warm": 0.4, "epochs": 20, "teacher": "refit", "refit_every": 1}
    changes = ("dataset.rows=400", "dataset.unlabelled=0", "train.student.epochs=10", "train.student.lr=0.01")
    none, kept = (facts(distil({**method, "replay": n}, *changes, out=f"replay-{n}")) for n in (0, 200))
    for found in (none, kept):
        assert "prequential" not in found, "a class is never right before it was learned: a row of zeros in the report"
        classes = found["accuracy_of_tasks"]["classes"]
        assert sorted(itertools.chain.from_iterable(classes)) == [f"class-{each}" for each in range(4)]
        for name in ("student", "baseline"):
            table = np.array(found["accuracy_of_tasks"][name])
            assert table.shape == (len(classes), len(classes))
            assert found["backward_transfer"][name] == pytest.approx((table[-1, :-1] - np.diag(table)[:-1]).mean())
    assert kept["forgetting"]["baseline"] < none["forgetting"]["baseline"]


def test_the_report_has_a_figure_over_time(distil: Callable[..., Any]) -> None:
    from stillhouse.evaluation.report.render import write_report

    result = distil(STREAM, *TIMED)
    text = write_report(result.folder).read_text()
    assert "Quality over time" in text
    assert "a gain of" in text


# What does not fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({}, ["dataset.times=false"], "have no times"),
        ({"warm": 0.99}, [], "none is left to be predicted"),
        ({"delay": 7}, [], "none is left to be predicted"),
        ({"teacher": "drift"}, [], "nothing tells drift"),
        ({"order": "classes", "delay": 1}, [], "no delay"),
        (
            {"order": "classes"},
            ["head=core/regression", "dataset.kind=regression", "objectives.soft=[soft]"],
            "head of classes",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_before_anything_is_trained(
    distil: Callable[..., Any], tmp_path: Path, options: dict[str, Any], changes: list[str], message: str
) -> None:
    with pytest.raises(IncompatibleError, match=message):
        distil({**STREAM, **options}, *TIMED, *changes)
    assert not (tmp_path / "run" / "teacher").exists()


def test_checking_a_recipe_goes_through_the_stream_without_training() -> None:
    found = check("core/stream-demo", overrides=["dataset.rows=600"])
    assert found.problems == []
    by_role = {each.role: each for each in found.models}
    assert len(by_role["baseline"].fits) == len(by_role["student"].fits) > 10
