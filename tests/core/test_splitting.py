"""Seeded splits by fractions, groups and folds, and files in a folder for each class."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.folders import class_folders
from stillhouse.data.splitting import fold_positions, split_groups, split_rows, spread_positions
from stillhouse.errors import DataError, IncompatibleError, LeakageError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.types import TensorSplit

FRACTIONS = {"val": 0.2, "test": 0.3}


def test_each_class_has_its_share_and_the_seed_decides() -> None:
    classes = np.array(["rare"] * 10 + ["common"] * 90)
    drawn = split_rows(100, FRACTIONS, 0, classes=classes)
    assert sorted(np.concatenate(list(drawn.values()))) == list(range(100))
    assert {name: int((classes[at] == "rare").sum()) for name, at in drawn.items()} == {"train": 5, "val": 2, "test": 3}
    again = split_rows(100, FRACTIONS, np.random.default_rng(0), classes=classes)
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    assert not np.array_equal(drawn["val"], split_rows(100, FRACTIONS, 1, classes=classes)["val"])


def test_the_draw_is_the_one_that_recorded_figures_rest_on() -> None:
    drawn = split_rows(10, {"val": 0.2, "test": 0.2}, 0)
    order = np.random.default_rng(0).permutation(10)
    assert drawn["val"].tolist() == sorted(order[:2])
    assert drawn["test"].tolist() == sorted(order[2:4])


def test_groups_stay_whole_and_are_drawn_by_class() -> None:
    groups = [f"g{row // 3}" for row in range(60)]
    classes = np.repeat([0, 1], 30)
    drawn = split_groups(groups, FRACTIONS, 0, classes=classes)
    of_split = {name: {groups[at] for at in positions} for name, positions in drawn.items()}
    assert sum(map(len, of_split.values())) == len(set.union(*of_split.values())) == 20
    assert {name: classes[at].mean() for name, at in drawn.items()} == {"train": 0.5, "val": 0.5, "test": 0.5}


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(OptionError, match=r"val: 0\.6, test: 0\.5"):
        split_rows(10, {"val": 0.6, "test": 0.5}, 0)
    with pytest.raises(DataError, match=r"2 rows of class '1'"):
        split_rows(10, FRACTIONS, 0, classes=[0] * 8 + [1] * 2)
    with pytest.raises(DataError, match="1 customer cannot"):
        split_groups(["a"] * 10, FRACTIONS, 0, unit="customer")
    assert not len(split_rows(10, {"val": 0.2, "test": 0.0}, 0)["test"])


def test_folds_of_groups_keep_class_shares() -> None:
    target = torch.tensor([1 if row < 12 else 0 for row in range(60)])
    split = TensorSplit({"target": target}, groups=[f"g{row // 3}" for row in range(60)])
    for _, held in fold_positions(split, 4, OutputKind.BINARY, seed=0):
        assert int(target[held].sum()) == 3
    values = TensorSplit({"target": target.float()}, groups=split.groups)
    assert sorted(row for _, held in fold_positions(values, 4, OutputKind.REGRESSION, 0) for row in held) == list(
        range(60)
    )


def test_too_few_rows_of_every_class_for_the_folds_are_refused() -> None:
    split = TensorSplit({"target": torch.tensor([0, 0, 1, 1, 2, 2])})
    with pytest.raises(IncompatibleError, match="3 folds need as many rows"):
        fold_positions(split, 3, OutputKind.MULTICLASS, seed=0)


@given(rows=st.integers(1, 10**11), count=st.integers(2, 500))
def test_spread_positions_go_from_the_first_row_to_the_last_of_any_number(rows: int, count: int) -> None:
    """Of fifty million rows the last position was behind the last row: single precision counts to 2 ** 24."""
    if rows <= count:
        assert spread_positions(rows, count) == list(range(rows))
        return
    found = spread_positions(rows, count)
    assert len(found) == count == len(set(found))
    assert (found[0], found[-1]) == (0, rows - 1)
    steps = [after - before for before, after in pairwise(found)]
    assert max(steps) - min(steps) <= 1


def write(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)


def test_class_folders_of_either_layout(tmp_path: Path) -> None:
    write(tmp_path / "one", *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)))
    options = {"suffixes": (".png",), "fractions": FRACTIONS, "seed": 0}
    names, found = class_folders(tmp_path / "one", **options)
    assert names == ("cat", "dog")
    assert {split: (each.target.count(0), each.target.count(1)) for split, each in found.items()} == {
        "train": (5, 5),
        "val": (2, 2),
        "test": (3, 3),
    }
    assert all(
        file.parent.name == names[at]
        for each in found.values()
        for file, at in zip(each.files, each.target, strict=True)
    )
    write(tmp_path / "two", "train/cat/a_1.png", "train/dog/b_1.png", "val/cat/c_1.png", "test/dog/d_1.PNG")
    write(tmp_path / "two", "train/cat/notes.txt", "train/dog/.hidden.png")
    names, found = class_folders(tmp_path / "two", group="_", **options)
    assert (found["train"].groups, found["test"].target) == (("a", "b"), (1,))
    (tmp_path / "two/test/dog/e_1.png").write_text("train/cat/a_1.png")
    with pytest.raises(LeakageError, match="copy of"):
        class_folders(tmp_path / "two", **options)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["rare/notes.txt"], "'rare' has no files"),
        (["Cat/9.png"], "'Cat' and 'cat' differ in case or blanks alone"),
        (["cat /9.png"], "'cat' and 'cat ' differ in case or blanks alone"),
    ],
)
def test_class_folders_that_are_a_mistake_are_refused(tmp_path: Path, files: list[str], told: str) -> None:
    write(tmp_path, *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)), *files)
    with pytest.raises(DataError, match=told):
        class_folders(tmp_path, suffixes=(".png",), fractions=FRACTIONS, seed=0)


def test_a_file_in_the_folders_of_two_classes_is_refused(tmp_path: Path) -> None:
    write(tmp_path, *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)))
    (tmp_path / "dog" / "again.png").write_text("cat/3.png")
    with pytest.raises(DataError, match=r"'cat' has '3\.png', and 'dog' has 'again\.png'") as caught:
        class_folders(tmp_path, suffixes=(".png",), fractions=FRACTIONS, seed=0)
    assert caught.value.where.endswith("again.png")


def test_what_cannot_be_split_is_told_by_class_and_how_many_are_wanted() -> None:
    with pytest.raises(DataError, match="1 group of like texts of class 'Bukcet' cannot be split") as caught:
        split_groups(list("abcdefg"), FRACTIONS, 0, classes=["Bucket"] * 6 + ["Bukcet"], unit="group of like texts")
    assert caught.value.fix == (
        "bring at least 3 groups of like texts of class 'Bukcet', correct its label, or remove its rows"
    )
    with pytest.raises(DataError, match="4 files cannot be split") as caught:
        split_rows(4, {"val": 0.45, "test": 0.45}, 0, unit="file")
    assert caught.value.fix == "bring more, or lower the fractions"
