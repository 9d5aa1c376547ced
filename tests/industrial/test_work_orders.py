"""Work orders: machines for testing, places that several machines have, orders that repeat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stillhouse.errors import DataError, OptionError
from stillhouse.types import DataContext
from stillhouse_industrial.datasets.work_orders import work_orders


@pytest.fixture
def context(tmp_path: Path, write_orders: Callable[[Path], None]) -> DataContext:
    write_orders(tmp_path / "excavators-mwo")
    return DataContext(root=tmp_path / "work-orders", base=tmp_path)


def test_a_machine_is_for_testing_only(context: DataContext) -> None:
    splits = work_orders(context)
    assert splits.info.classes == ("bucket", "engine")
    assert {name: len(split) for name, split in splits.named().items()} == {"train": 72, "val": 8, "test": 40}
    both = work_orders(context, test_machines=("C", "E"))
    assert len(both.test) == 80


@pytest.mark.parametrize("machines", [(), ("Z",), ("C", "D", "E")])
def test_machines_that_cannot_be_tested_on_are_named(context: DataContext, machines: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match="test_machines are") as error:
        work_orders(context, test_machines=machines)
    assert "C, D, E" in error.value.fix


def test_missing_files_say_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        work_orders(DataContext(root=tmp_path / "x", base=tmp_path))


@pytest.mark.data
def test_the_official_file(data_folder: Path) -> None:
    folder = data_folder / "industrial" / "excavators-mwo"
    if not folder.is_dir():
        pytest.skip("needs the excavators in STILLHOUSE_DATA")
    splits = work_orders(DataContext(root=folder.parent / "work-orders", base=Path()))
    assert len(splits.info.classes or ()) == 15
    assert "o&k rh120c" not in (splits.info.classes or ())
    assert len(splits.test) > 500
