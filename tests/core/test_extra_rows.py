"""Rows that only the teacher labels: augmenters, and the recipe field that uses them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import stillhouse
from stillhouse.components.augmenters import jitter, mixup, munge
from stillhouse.errors import DataError, IncompatibleError, OptionError, RecipeError
from stillhouse.pipeline.extra_rows import check_suits
from stillhouse.pipeline.stages import RECORD
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.storage import read_json, read_tensors
from stillhouse.types import DataInfo, Split, TensorSpec, TensorSplit

RECIPE: dict[str, Any] = {
    "name": "extra",
    "head": "core/multiclass",
    "dataset": {"use": "core/synthetic", "rows": 120, "unlabelled": 20, "groups": 24},
    "extra_rows": {"use": "core/munge", "per_row": 1.5},
    "teacher": {"use": "core/mlp", "hidden": [8]},
    "student": {"use": "core/mlp", "hidden": [4]},
    "train": {"teacher": {"epochs": 1, "batch_size": 32}, "student": {"epochs": 1, "batch_size": 32}},
    "evaluate": {"latency_samples": 5, "throughput_batch": 8},
    "seeds": [0],
    "device": "cpu",
}
MAKERS = {"munge": munge, "mixup": mixup, "jitter": jitter}


def table(rows: int, seed: int) -> tuple[TensorSplit, DataInfo]:
    """A table with continuous, constant and 0/1 columns, a few levels, tokens with their mask, and a window."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=random)
    x[:, 1] = (x[:, 1] > 0).float()
    x[:, 2] = 7.0
    x[:, 3] = torch.randint(0, 2, (rows,), generator=random) * 3.5
    tokens = torch.randint(1, 9, (rows, 5), generator=random)
    columns = {
        "x": x,
        "window": torch.randn(rows, 6, 2, generator=random),
        "tokens": tokens,
        "mask": tokens < tokens[:, :1],
        "target": torch.randint(0, 3, (rows,), generator=random),
        "weight": torch.rand(rows, generator=random),
    }
    shapes = {"x": ((4,), "float32"), "window": ((6, 2), "float32"), "tokens": ((5,), "int64"), "mask": ((5,), "bool")}
    return TensorSplit(columns), DataInfo(inputs={name: TensorSpec(*each) for name, each in shapes.items()})


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(sorted(MAKERS)),
    rows=st.integers(2, 30),
    count=st.integers(1, 70),
    seed=st.integers(0, 2**31 - 1),
)
def test_rows_are_as_declared_and_follow_the_seed(name: str, rows: int, count: int, seed: int) -> None:
    train, info = table(rows, seed)
    made = MAKERS[name]()(train, info, count, seed)
    batch = made.batch(range(count))
    assert len(made) == count
    assert set(batch) == {"x", "window", "tokens", "mask", "weight"}
    for entry, spec in info.inputs.items():
        assert (tuple(batch[entry].shape[1:]), str(batch[entry].dtype)) == (spec.shape, f"torch.{spec.dtype}")
        assert torch.isfinite(batch[entry].double()).all()
    again = MAKERS[name]()(train, info, count, seed)
    assert made.fingerprint() == again.fingerprint()
    assert all(torch.equal(batch[entry], again.batch(range(count))[entry]) for entry in batch)
    assert torch.equal(made.row(count - 1)["x"], batch["x"][-1])  # whichever rows are asked for with it
    # Tokens are those of one training row, and the mask is that row's.
    whole = train.columns()
    of_training, of_made = (
        set(map(tuple, torch.cat([each["tokens"], each["mask"].long()], dim=1).tolist())) for each in (whole, batch)
    )
    assert of_made <= of_training


@settings(max_examples=15, deadline=None)
@given(rows=st.integers(2, 60), seed=st.integers(0, 1000), p=st.floats(0.05, 1), s=st.floats(0.2, 10))
def test_discrete_columns_keep_their_values(rows: int, seed: int, p: float, s: float) -> None:
    train, info = table(rows, seed)
    for made in (munge(p=p, s=s)(train, info, 80, seed), jitter(noise=0.5)(train, info, 80, seed)):
        for column in (1, 2, 3):
            values = made.columns(["x"])["x"][:, column].unique()
            assert set(values.tolist()) <= set(train.columns(["x"])["x"][:, column].tolist())


def test_munge_moves_towards_the_neighbour_by_p_and_s() -> None:
    """Two far groups of two rows each, so that each row's neighbour is known."""
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [100.0, 100.0], [101.0, 102.0]]).repeat_interleave(1, 0)
    x = torch.cat([x, x + 1000, x + 2000, x + 3000, x + 4000, x + 5000])  # enough distinct values to be continuous
    other = torch.arange(len(x)) ^ 1
    train, info = TensorSplit({"x": x}), DataInfo(inputs={"x": TensorSpec((2,))})
    count = 200 * len(x)
    made = munge(p=0.25, s=4.0, neighbours=1)(train, info, count, 0).columns(["x"])["x"]
    base = x.repeat(200, 1)
    changed = made != base
    assert float(changed.float().mean()) == pytest.approx(0.25, abs=0.02)
    drawn = ((made - x[other].repeat(200, 1)) / (base - x[other].repeat(200, 1)))[changed]
    assert float(drawn.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(drawn.std()) == pytest.approx(0.25, abs=0.02)  # N(b, |a - b| / s)


def test_windows_keep_their_course_over_time() -> None:
    """Between two sine waves of one phase everything is a sine wave of that phase: no noise within a channel."""
    wave = torch.sin(torch.linspace(0, 6, 50))
    sizes = torch.linspace(0.5, 3, 40)
    train = TensorSplit({"w": (sizes[:, None] * wave)[..., None].expand(-1, -1, 3).clone()})
    info = DataInfo(inputs={"w": TensorSpec((50, 3))})
    for augmenter in (munge(p=1.0), mixup(), jitter(noise=0.0, scale=0.3)):
        made = augmenter(train, info, 100, 0).columns(["w"])["w"]
        share = (made * wave[:, None]).sum(1, keepdim=True) / wave.square().sum()
        assert torch.allclose(made, share * wave[:, None], atol=1e-5)
    assert float((share - 1).std()) > 0.1
    first = TensorSplit({"w": train.columns(["w"])["w"].transpose(1, 2)})
    turned = munge(p=0.5, channels_first=True)(first, DataInfo(inputs={"w": TensorSpec((3, 50))}), 100, 0)
    flat = turned.columns(["w"])["w"]
    assert torch.allclose(flat, (flat * wave).sum(2, keepdim=True) / wave.square().sum() * wave, atol=1e-5)


def test_missing_values_are_exchanged() -> None:
    train, info = table(40, 0)
    x = train.columns(["x"])["x"]
    x[::3, 0] = float("nan")
    made = munge(p=1.0)(train, info, 200, 0).columns(["x"])["x"][:, 0]
    assert 0 < int(made.isnan().sum()) < 200


class Drawing(TensorSplit):
    stochastic = True

    def batch(self, positions):
        found = super().batch(positions)
        return {**found, "x": found["x"] + torch.randn(found["x"].shape)}


def test_rows_of_a_split_that_is_augmented_at_random_are_drawn_anew() -> None:
    train, info = table(30, 0)
    made = munge()(Drawing(train.columns()), info, 10, 0)
    assert made.stochastic
    assert not torch.equal(made.batch(range(10))["x"], made.batch(range(10))["x"])


@pytest.mark.parametrize(
    "wrong", [{"p": 0.0}, {"p": 1.5}, {"s": 0.0}, {"neighbours": 0}, {"use": "core/mixup", "alpha": 0.0}]
)
def test_option_out_of_range_is_refused_with_the_recipe(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"must be (in|above|at least)"):
        stillhouse.run({**RECIPE, "extra_rows": {"use": "core/munge", **wrong}})


def test_run_uses_them_and_only_the_student_depends_on_them(tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = stillhouse.run(RECIPE, out=out).summary
    train = summary["dataset"]["rows"]["train"]
    extra = round(1.5 * train)
    assert summary["dataset"]["rows"]["unlabelled"] == 20 + extra
    told = summary["extra_rows"]
    assert (told["use"], told["p"], told["per_row"], told["rows"]) == ("core/munge", 0.5, 1.5, extra)
    assert told["share_of_rows"] == pytest.approx(0.5 * extra / (20 + extra))
    assert told["labelling_seconds"] > 0
    assert f"{extra} rows" in (out / "report.html").read_text(encoding="utf-8")
    ids = read_tensors(out / "data" / "rows.safetensors")
    assert len(set(torch.cat(list(ids.values())).tolist())) == sum(summary["dataset"]["rows"].values())

    without = stillhouse.run(RECIPE, out=tmp_path / "without", overrides=["extra_rows=null"]).summary
    assert without["extra_rows"] is None
    assert without["dataset"]["fingerprint"] == summary["dataset"]["fingerprint"]
    for unit in ("teacher/member-0", "baseline/seed-0"):
        assert read_json(out / unit / RECORD) == read_json(tmp_path / "without" / unit / RECORD)
    weights = [read_tensors(folder / "student/seed-0/model.safetensors") for folder in (out, tmp_path / "without")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    # Started again, nothing is made anew; another option makes the student again, and nothing else.
    stamps = {
        name: (out / name).stat().st_mtime_ns for name in ("student/seed-0/done.json", "baseline/seed-0/done.json")
    }
    stillhouse.run(RECIPE, out=out)
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in stamps}
    stillhouse.run(RECIPE, out=out, overrides=["extra_rows.p=0.9"], overwrite=True)
    now = {name: (out / name).stat().st_mtime_ns for name in stamps}
    assert [now[name] == stamp for name, stamp in stamps.items()] == [False, True]


def test_run_repeats_bit_for_bit_and_with_folds_estimators_and_live_teachers(tmp_path: Path) -> None:
    trees = {"teacher": {"use": "core/random-forest", "out_of_fold": 2}, "student": {"use": "core/decision-tree"}}
    summary = stillhouse.run({**RECIPE, **trees}, out=tmp_path / "trees", stop_after="evaluate").summary
    told, rows = summary["extra_rows"], summary["dataset"]["rows"]
    assert told["share_of_rows"] == pytest.approx(told["rows"] / (rows["train"] + rows["unlabelled"]))
    weights = []
    for name, change in (("one", ""), ("two", ""), ("live", "teacher.cache=false")):
        result = stillhouse.run(
            RECIPE, out=tmp_path / name, overrides=[change] if change else [], stop_after="evaluate"
        )
        weights.append(read_tensors(tmp_path / name / "student/seed-0/model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert result.summary["extra_rows"]["labelling_seconds"] is None


OWN = '''
from stillhouse.errors import StillhouseError
from stillhouse.types import TensorSplit

import torch


def copies(*, label: bool = False, short: bool = False):
    """Copies of training rows.

    Args:
        label: with their labels.
        short: one row less than asked for.
    """

    def augmenter(train, info, count, seed):
        columns = train.columns(["x", "target"])
        chosen = torch.randint(len(train), (count - short,), generator=torch.Generator().manual_seed(seed))
        return TensorSplit({name: columns[name][chosen] for name in (("x", "target") if label else ("x",))})

    return augmenter
'''


def test_augmenter_is_named_by_its_module_and_its_rows_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_copies.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = {**RECIPE, "extra_rows": {"use": "my_copies:copies", "per_row": 2}}
    stillhouse.run(recipe, out=tmp_path / "run", stop_after="data")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["components"]["extra_rows"]["sha256"]
    for option, words in (("label", "have a target"), ("short", "were asked for")):
        with pytest.raises(DataError, match=words):
            stillhouse.run(recipe, out=tmp_path / option, overrides=[f"extra_rows.{option}=true"], stop_after="data")
    sys.modules.pop("my_copies", None)


def test_inputs_that_an_augmenter_cannot_change_are_one_clear_error() -> None:
    tokens = DataInfo(inputs={"tokens": TensorSpec((12,), "int64")})
    with pytest.raises(
        IncompatibleError, match=r"'core/munge' changes float32 .* the dataset has tokens \(int64\)"
    ) as caught:
        check_suits(default_manager().registry.get("augmenter", "core/munge"), tokens)
    assert caught.value.where == "extra_rows"


def test_field_is_checked_and_written_out() -> None:
    with pytest.raises(RecipeError, match="per_row"):
        stillhouse.run({**RECIPE, "extra_rows": {"use": "core/munge", "per_row": 0}})
    with pytest.raises(OptionError, match="no option 'q'"):
        stillhouse.run({**RECIPE, "extra_rows": {"use": "core/munge", "q": 0}})


def test_split_is_a_split() -> None:
    assert isinstance(mixup()(*table(5, 0), 3, 0), Split)


HOOKS = """
from stillhouse import hookimpl
from stillhouse.kinds import OutputKind
from stillhouse.plugins import AugmenterSpec


@hookimpl
def stillhouse_augmenters():
    yield AugmenterSpec(
        name="values",
        target="stillhouse.components.augmenters:mixup",
        summary="Looks at the values of targets",
        kinds=(OutputKind.REGRESSION,),
    )
"""


def test_augmenter_of_other_targets_is_refused_with_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "my_rows.py").write_text(HOOKS)
    manager = Manager(installed=False, files=[tmp_path / "my_rows.py"])
    with pytest.raises(IncompatibleError, match="'my_rows/values' needs regression targets") as caught:
        stillhouse.run({**RECIPE, "extra_rows": "my_rows/values"}, manager=manager)
    assert "extra_rows" in caught.value.where
