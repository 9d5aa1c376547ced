"""A teacher's distributions over tokens on disk: the likeliest of each position, and the mass of the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import stillhouse
from stillhouse.errors import IncompatibleError, RecipeError, RunFolderError
from stillhouse.plugins.manager import default_manager
from stillhouse.progress import Silent
from stillhouse.recipe.check import resolve
from stillhouse.teachers import TopKTeacher, write_top_k
from stillhouse.text import Ragged, TextSplit
from stillhouse.types import Batch, Outputs, TensorSplit


def split_of(lengths: list[int], first: int = 0) -> TextSplit:
    """Rows of which every third position is ignored."""
    targets = [[-100 if at % 3 == 2 else at for at in range(length)] for length in lengths]
    return TextSplit(
        [[row + 1] * length for row, length in enumerate(lengths)],
        {"index": torch.arange(len(lengths)) + first},
        ragged={"target": Ragged(targets, fill=-100)},
    )


class Says:
    """Logits that are a function of row id and position."""

    def __init__(self, outputs: int, scale: float = 3.0) -> None:
        self.outputs, self.scale = outputs, scale

    def __call__(self, batch: Batch) -> Outputs:
        found = torch.zeros(*batch["target"].shape, self.outputs)
        for row, at in enumerate(batch["index"].tolist()):
            for place in range(found.shape[1]):
                generator = torch.Generator().manual_seed(at * 1000 + place)
                found[row, place] = torch.randn(self.outputs, generator=generator) * self.scale
        return Outputs(found)


def shortened(logits: Tensor, k: int) -> tuple[np.ndarray, float]:
    """By definition: the k likeliest as they are, the rest's mass shared evenly; and the mass of the rest."""
    p = np.exp(logits.double().numpy())
    p /= p.sum()
    kept = np.argsort(-p)[:k]
    rest = 1 - p[kept].sum()
    found = np.full(len(p), rest / max(len(p) - k, 1))
    found[kept] = p[kept]
    return found, rest


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    outputs=st.integers(2, 40),
    k=st.integers(1, 40),
    shard=st.sampled_from([3, 2**18]),
)
def test_what_is_read_back_is_the_likeliest_and_the_mass_of_the_rest(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], outputs: int, k: int, shard: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stillhouse.teachers.top_k.SHARD", shard)
        folder, split, says = tmp_path_factory.mktemp("cache") / "kept", split_of(lengths, first=50), Says(outputs)
        write_top_k(says, split, folder, key="a", k=k, outputs=outputs)
        order = list(range(len(lengths)))[::-1]
        batch = split.batch(order)
        found, whole = TopKTeacher((folder, "a"))(batch).prediction, says(batch).prediction
        k, divergence, rest = min(k, outputs), [], []
        for row in range(len(order)):
            for place in range(found.shape[1]):
                if batch["target"][row, place] < 0:
                    assert not found[row, place].any()
                    continue
                wanted, mass = shortened(whole[row, place], k)
                got = found[row, place].double().softmax(dim=0).numpy()
                np.testing.assert_allclose(got, wanted, rtol=0.02, atol=1e-5)
                p = whole[row, place].double().softmax(dim=0).numpy()
                divergence.append(float((p * (np.log(p) - np.log(got))).sum()))
                rest.append(mass)
    facts = json.loads((folder / "cache.json").read_text())
    assert facts["error"] == pytest.approx(np.mean(divergence), abs=1e-4)
    assert facts["rest"] == pytest.approx(np.mean(rest), abs=2e-3)
    assert facts["k"] == k
    assert facts["tokens"] == len(divergence)
    assert facts["bytes_per_token"] == 4 * k + 2


def test_a_vocabulary_of_fifty_thousand_takes_the_bytes_that_are_told(tmp_path: Path) -> None:
    split, says = split_of([6, 4, 5]), Says(50_000, scale=4.0)
    write_top_k(says, split, tmp_path / "kept", key="a", k=64, outputs=50_000)
    facts = json.loads((tmp_path / "kept" / "cache.json").read_text())
    assert facts["bytes_per_token"] == 64 * 4 + 2 == 258
    data = sum(np.load(tmp_path / "kept" / "shard-000000" / f"{name}.npy").nbytes for name in ("ids", "logs", "rest"))
    assert data == 258 * facts["tokens"]
    assert data < 50_000 * 4 * facts["tokens"] / 500
    batch = split.batch([0, 1, 2])
    found, whole = TopKTeacher((tmp_path / "kept", "a"))(batch).prediction, says(batch).prediction
    valid = batch["target"] >= 0
    assert torch.equal(found.argmax(dim=2)[valid], whole.argmax(dim=2)[valid]), "ids above 32,767 survive"
    assert int(found.argmax(dim=2)[valid].max()) > 2**15
    write_top_k(Says(70_000), split_of([2]), tmp_path / "wide", key="a", k=2, outputs=70_000)
    assert json.loads((tmp_path / "wide" / "cache.json").read_text())["bytes_per_token"] == 2 * 6 + 2


def test_certain_distributions_stay_finite(tmp_path: Path) -> None:
    split = split_of([2])

    def certain(batch: Batch) -> Outputs:
        found = torch.full((*batch["target"].shape, 9), -1e4)
        found[..., 3] = 1e4
        return Outputs(found)

    write_top_k(certain, split, tmp_path / "kept", key="a", k=2, outputs=9)
    found = TopKTeacher((tmp_path / "kept", "a"))(split.batch([0])).prediction
    assert bool(found.isfinite().all())
    assert float(found[0, 0].softmax(dim=0)[3]) == pytest.approx(1.0, abs=1e-3)
    assert float(found[0, 0].log_softmax(dim=0).min()) >= -60_001
    facts = json.loads((tmp_path / "kept" / "cache.json").read_text())
    assert math.isfinite(facts["error"])


def test_several_caches_answer_as_one_and_damage_is_named(tmp_path: Path) -> None:
    one, two, says = split_of([3, 4]), split_of([5], first=7), Says(12)
    for name, split in (("one", one), ("two", two)):
        write_top_k(says, split, tmp_path / name, key=name, k=12, outputs=12)
    both = TopKTeacher((tmp_path / "one", "one"), (tmp_path / "two", "two"))
    batch = {
        name: torch.cat(
            [one.batch([1])[name], two.batch([0])[name][:, :4] if name != "index" else two.batch([0])[name]]
        )
        for name in ("index",)
    }
    targets = [one.batch([1])["target"], two.batch([0])["target"]]
    batch["target"] = torch.full((2, 5), -100)
    batch["target"][0, :4], batch["target"][1] = targets[0][0], targets[1][0]
    found, whole = both(batch).prediction.softmax(dim=2), says(batch).prediction.softmax(dim=2)
    valid = batch["target"] >= 0
    torch.testing.assert_close(found[valid], whole[valid], rtol=0.02, atol=1e-4)
    with pytest.raises(RunFolderError, match="made from other rows or another teacher"):
        TopKTeacher((tmp_path / "one", "two"))
    with pytest.raises(RunFolderError, match="row 99 has no stored teacher output"):
        both({**batch, "index": torch.tensor([99, 7])})
    with pytest.raises(RunFolderError, match="another number of valid positions"):
        both({**batch, "target": batch["target"].clamp_min(0)})
    (tmp_path / "one" / "shard-000000" / "ids.npy").write_bytes(b"none")
    with pytest.raises(RunFolderError, match="are damaged"):
        TopKTeacher((tmp_path / "one", "one"))
    with pytest.raises(IncompatibleError, match="or have no target"):
        write_top_k(says, TensorSplit({"x": torch.zeros(2, 1)}), tmp_path / "three", key="a", k=1, outputs=12)


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "name": "top-k",
        "head": "core/sequence",
        "dataset": {"use": "core/synthetic", "kind": "sequence", "rows": 160},
        "teacher": {"use": "core/mlp", "hidden": [8], "top_k": 2},
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"teacher": {"epochs": 1}, "student": {"epochs": 2}},
        "seeds": [0],
        "device": "cpu",
        **changes,
    }


def test_a_run_learns_from_the_likeliest_and_says_what_they_leave_out(tmp_path: Path) -> None:
    told: list[str] = []

    class Listening(Silent):
        def warn(self, message: str) -> None:
            told.append(message)

    stillhouse.run(recipe(), out=tmp_path / "run", stop_after="student", reporter=Listening())
    stillhouse.run(recipe(), out=tmp_path / "run", stop_after="evaluate")
    facts = json.loads((tmp_path / "run" / "teacher" / "signal-train" / "cache.json").read_text())
    assert facts["k"] == 2
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["teacher"]["stored"] == {
        name: facts[name] for name in ("k", "tokens", "bytes_per_token", "error", "rest")
    }
    assert summary["teacher"]["stored"]["bytes_per_token"] == 10
    if facts["error"] > 0.1:
        assert any("leave out a KL divergence" in warning for warning in told)


def test_all_tokens_teach_what_the_teacher_itself_does(tmp_path: Path) -> None:
    losses = []
    for name, top_k in (("whole", None), ("all", 1000)):
        teacher = {"use": "core/mlp", "hidden": [8], "top_k": top_k}
        result = stillhouse.run(recipe(teacher=teacher), out=tmp_path / name, stop_after="student")
        lines = (result.folder / "student" / "seed-0" / "history.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["train"]["terms"]["core/token-kl"]["raw"] for line in lines])
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert losses[0] != losses[1], "half precision leaves its mark"


def test_another_number_of_tokens_makes_the_student_again(tmp_path: Path) -> None:
    weights = []
    for top_k in (1, 3, 1):
        teacher = {"use": "core/mlp", "hidden": [8], "top_k": top_k}
        result = stillhouse.run(recipe(teacher=teacher), out=tmp_path / "run", stop_after="student", overwrite=True)
        weights.append((result.folder / "student" / "seed-0" / "model.safetensors").read_bytes())
    assert weights[0] != weights[1]
    assert weights[0] == weights[2]


def test_what_is_not_stored_token_by_token_is_refused() -> None:
    registry = default_manager().registry
    other = {"head": "core/multiclass", "dataset": "core/synthetic"}
    with pytest.raises(IncompatibleError, match="outputs of multiclass heads are stored whole"):
        resolve(recipe(**other), registry)
    with pytest.raises(RecipeError, match="top_k says how outputs are stored"):
        resolve(recipe(teacher={"use": "core/mlp", "top_k": 2, "cache": False}), registry)
    hints = [{"use": "core/hints", "student": "backbone", "teacher": "backbone"}]
    with pytest.raises(IncompatibleError, match="features of a teacher that is tapped are not stored"):
        resolve(recipe(objectives={"soft": hints}), registry)
