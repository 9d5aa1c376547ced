"""core/sequence and core/on-policy: the teacher writes for the student, or judges what the student writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

import stillhouse
from stillhouse.errors import IncompatibleError
from stillhouse.methods import MethodContext
from stillhouse.methods.on_policy import OwnTexts
from stillhouse.pipeline import RunResult
from stillhouse.pipeline.checking import check
from stillhouse.plugins.manager import default_manager
from stillhouse.progress import Reporter, Silent
from stillhouse.recipe.check import resolve
from stillhouse.text.generators import TextWriter, until_end
from stillhouse.training.learner import Distillation, Supervised

SMALL = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}


def recipe(method: Any, **changes: Any) -> dict[str, Any]:
    return {
        "name": "writing",
        "head": {"use": "core/generation", "max_tokens": 8},
        "dataset": {"use": "core/synthetic-pairs", "rows": 80},
        "teacher": {"use": "core/hf-seq2seq", "config": {**SMALL, "d_model": 24}},
        "student": {"use": "core/hf-seq2seq", "config": SMALL},
        "method": method,
        "train": {
            "teacher": {"epochs": 3, "batch_size": 16, "lr": 0.01},
            "student": {"epochs": 3, "batch_size": 16, "lr": 0.01},
        },
        "seeds": [0],
        "device": "cpu",
        **changes,
    }


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the fits of a run were given."""
    seen: list[dict[str, Any]] = []
    genuine = MethodContext.fit

    def watched(self: MethodContext, learner: Any, **given: Any) -> Any:
        seen.append({"learner": learner, "context": self, **given})
        return genuine(self, learner, **given)

    monkeypatch.setattr(MethodContext, "fit", watched)
    return seen


def distil(folder: Path, method: Any, reporter: Reporter | None = None, **changes: Any) -> RunResult:
    return stillhouse.run(recipe(method, **changes), out=folder, stop_after="student", reporter=reporter)


def weights(folder: Path) -> bytes:
    return (folder / "student" / "seed-0" / "model.safetensors").read_bytes()


def notes(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "student" / "seed-0" / "method.json").read_text())
    return found


class StopIn(Silent):
    """Interrupts the student once, in its second epoch."""

    stopped = False

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Silent`."""
        if record["stage"] == "student" and record["epoch"] == 1 and not self.stopped:
            self.stopped = True
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", [{"use": "core/sequence", "beams": 2}, "core/on-policy"])
def test_a_run_that_is_interrupted_ends_with_the_same_bits(
    method: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.training.loop.CHECKPOINT_SECONDS", 0.0)
    distil(tmp_path / "whole", method)
    with pytest.raises(KeyboardInterrupt):
        distil(tmp_path / "stopped", method, StopIn())
    distil(tmp_path / "stopped", method)
    assert weights(tmp_path / "whole") == weights(tmp_path / "stopped")


def test_the_student_learns_what_the_teachers_beam_search_finds(tmp_path: Path, fits: list[dict[str, Any]]) -> None:
    distil(tmp_path / "run", {"use": "core/sequence", "beams": 3, "max_tokens": 6}, objectives={"alpha": 1.0})
    (fit,) = fits
    assert type(fit["learner"]) is Supervised, "without soft losses the teacher is not asked in the steps"
    context, rows = fit["context"], fit["rows"]
    true, facts = context.splits.train, context.splits.info.meta["text"]
    (teacher,) = context.teachers
    for at in (0, 7, 30):
        one = true.batch([at])
        (written,) = teacher.model.generate(one["source"], one["source_mask"], max_tokens=6, beams=3)
        text = [token for token in written[until_end(written[None], facts["end"])[0]].tolist() if token != facts["end"]]
        got = rows.row(at)
        assert got["target"].tolist() == [*text, facts["end"]]
        assert got["given"].tolist() == [facts["start"], *text]
        assert torch.equal(got["source"], true.row(at)["source"])
    # The loss is the cross-entropy of that text.
    batch = rows.batch([0, 7])
    with torch.no_grad():
        loss = float(fit["learner"].eval()(batch, 2)[0])
        logits = fit["learner"].student(*(batch[name] for name in ("source", "source_mask", "given"))).double().numpy()
    target = batch["target"].numpy()
    logs = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    by_hand = -np.take_along_axis(logs, np.where(target < 0, 0, target)[..., None], 2)[..., 0][target >= 0].mean()
    assert loss == pytest.approx(by_hand, rel=1e-4)
    told = notes(tmp_path / "run")
    assert told["texts"] == len(true)
    assert told["tokens_per_text"] == pytest.approx(
        np.mean([len(rows.row(at)["target"]) - 1 for at in range(len(rows))])
    )
    assert 0 <= told["texts_equal_to_the_label"] <= 1
    assert 0 <= told["texts_cut"] <= 1


def test_the_teacher_writes_once_for_all_seeds_and_again_for_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[dict[str, Any]]
) -> None:
    asked: list[int] = []
    genuine = TextWriter.generate

    def counted(self: TextWriter, source: Tensor, source_mask: Tensor, **given: Any) -> Tensor:
        asked.append(given.get("beams", 1))
        found: Tensor = genuine(self, source, source_mask, **given)
        return found

    monkeypatch.setattr(TextWriter, "generate", counted)
    distil(tmp_path / "one", {"use": "core/sequence", "beams": 2}, seeds=[0, 1])
    beamed = asked.count(2)
    assert beamed > 0
    assert len(fits) == 2
    assert type(fits[0]["learner"]) is Distillation, "the soft loss counts on the teacher's own text"
    distil(
        tmp_path / "two",
        {"use": "core/sequence", "beams": 2},
        train={"student": {"epochs": 1}, "teacher": {"epochs": 3, "batch_size": 16, "lr": 0.01}},
    )
    assert asked.count(2) == beamed, "another run with the same teacher finds the texts"
    distil(tmp_path / "three", {"use": "core/sequence", "beams": 4})
    assert asked.count(4) > 0


def test_a_step_on_the_students_own_text_is_the_divergence_alone(tmp_path: Path, fits: list[dict[str, Any]]) -> None:
    soft = {"use": "core/token-kl", "direction": "jsd", "beta": 0.3}
    distil(tmp_path / "run", {"use": "core/on-policy", "share": 1.0}, objectives={"alpha": 0.4, "soft": [soft]})
    (fit,) = fits
    learner, context = fit["learner"], fit["context"]
    assert isinstance(learner, OwnTexts)
    batch = context.splits.train.batch(range(6))
    torch.manual_seed(3)
    torch.rand(())
    own = learner.rewritten(batch)
    facts = context.splits.info.meta["text"]
    assert own["target"].shape == own["given"].shape
    for given, target in zip(own["given"], own["target"], strict=True):
        valid = target[target >= 0]
        assert int(given[0]) == facts["start"]
        assert given[1 : len(valid)].tolist() == valid[:-1].tolist()
        assert facts["end"] not in valid[:-1].tolist()
    torch.manual_seed(3)
    loss, values = learner.eval()(batch, 6)
    assert list(values) == ["core/token-kl"]
    inputs = [own[name] for name in ("source", "source_mask", "given")]
    with torch.no_grad():
        one, two = (
            torch.softmax(model(*inputs).double(), dim=2).numpy()[own["target"].numpy() >= 0]
            for model in (learner.student, context.teachers[0].model)
        )
    middle = 0.3 * two + 0.7 * one
    by_hand = 0.3 * (two * np.log(two / middle)).sum(1) + 0.7 * (one * np.log(one / middle)).sum(1)
    assert loss.item() == pytest.approx(by_hand.mean(), rel=1e-4)
    loss.backward()
    assert learner.loss.alpha == 0.4, "the next step has its own loss again"
    assert learner.loss.hard_loss is not None
    assert context.teachers[0].model.training is False


def test_the_share_of_steps_on_own_texts_is_as_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: list[dict[str, Any]]
) -> None:
    distil(tmp_path / "run", {"use": "core/on-policy", "share": 0.3, "max_tokens": 3})
    learner, context = fits[0]["learner"], fits[0]["context"]
    batch, rewritten = context.splits.train.batch([0, 1]), []
    monkeypatch.setattr(OwnTexts, "rewritten", lambda self, given: rewritten.append(1) or given)
    torch.manual_seed(0)
    for _ in range(400):
        with torch.no_grad():
            values = learner(batch, 2)[1]
        assert ("hard" in values) or rewritten
    assert pytest.approx(len(rewritten), abs=28) == 0.3 * 400  # three standard deviations


def test_none_of_ones_own_texts_is_plain_distillation_but_for_the_draws(tmp_path: Path) -> None:
    distil(
        tmp_path / "own",
        {"use": "core/on-policy", "share": 0.0},
        student={"use": "core/hf-seq2seq", "config": {**SMALL, "dropout_rate": 0.0}},
    )
    distil(
        tmp_path / "plain", "core/offline", student={"use": "core/hf-seq2seq", "config": {**SMALL, "dropout_rate": 0.0}}
    )
    assert weights(tmp_path / "own") == weights(tmp_path / "plain")


@pytest.mark.parametrize("method", ["core/sequence", "core/on-policy"])
def test_what_cannot_be_written_is_refused_before_anything_is_trained(method: str) -> None:
    given = recipe(method, head="core/sequence")
    with pytest.raises(IncompatibleError, match="has models write texts, and the head 'core/sequence' judges none"):
        resolve(given, default_manager().registry)
    folds = recipe(method, teacher={"use": "core/hf-seq2seq", "config": SMALL, "out_of_fold": 2})
    with pytest.raises(IncompatibleError, match="changes inputs in its steps"):
        resolve(folds, default_manager().registry)


def test_check_says_that_times_of_writing_are_upper_bounds() -> None:
    found = check(recipe("core/sequence"))
    assert found.problems == []
    few, said = found.warnings
    assert few.startswith("the test has 16 rows")
    assert "upper bounds" in said
