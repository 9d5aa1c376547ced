"""Tiny files in the official layout of C-MAPSS, and contexts that point to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stillhouse.types import DataContext

LIVES = (40, 35, 50, 45, 38, 42, 36, 44, 39, 41)
SEEN = (33, 12, 40, 31)
AFTER = (17, 90, 3, 200)
MODES = np.array([[0.0, 0.0, 100.0], [20.0, 0.7, 100.0], [42.0, 0.84, 100.0]])


def rows(lengths: tuple[int, ...], seed: int, modes: np.ndarray | None = None) -> np.ndarray:
    """Unit, cycle, 3 settings, 21 sensors; sensors 1, 5 and 6 are constant (within a condition)."""
    random = np.random.default_rng(seed)
    made = []
    for unit, length in enumerate(lengths, start=1):
        cycle = np.arange(1, length + 1)
        at = random.integers(0, 1 if modes is None else len(modes), length)
        settings = (np.zeros((1, 3)) if modes is None else modes)[at] + random.normal(0, 1e-3, (length, 3))
        sensors = random.normal(0, 1, (length, 21)) + cycle[:, None] / 10 + 100.0 * at[:, None]
        sensors[:, [0, 4, 5]] = 500.0 + 10.0 * at[:, None]
        made.append(np.column_stack([np.full(length, unit), cycle, settings, sensors]))
    return np.concatenate(made)


def write(path: Path, table: np.ndarray) -> None:
    """As the official files are: blanks between the columns and two at the end of each row."""
    lines = [" ".join([f"{row[0]:.0f}", f"{row[1]:.0f}", *(f"{value:.4f}" for value in row[2:])]) for row in table]
    path.write_text("".join(f"{line}  \n" for line in lines))


def make(folder: Path, subset: str = "FD001", modes: np.ndarray | None = None) -> DataContext:
    """The three files of ``subset`` in ``folder``, and a context that points there."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"train_{subset}.txt", rows(LIVES, 1, modes))
    write(folder / f"test_{subset}.txt", rows(SEEN, 2, modes))
    (folder / f"RUL_{subset}.txt").write_text("".join(f"{value} \n" for value in AFTER))
    return DataContext(root=folder, base=folder)


@pytest.fixture(scope="session")
def write_official() -> Callable[..., DataContext]:
    """``write_official(folder, subset)``: the three files of a tiny FD001, or of a subset in several conditions."""

    def write(folder: Path, subset: str = "FD001") -> DataContext:
        six = np.concatenate([MODES, MODES + np.array([5.0, 0.05, -40.0])])
        return make(folder, subset, None if subset in ("FD001", "FD003") else six)

    return write


@pytest.fixture
def official(tmp_path: Path) -> SimpleNamespace:
    """``context`` of a tiny FD001, its ``folder``, and ``make``, ``rows``, ``write`` to change it."""
    return SimpleNamespace(
        context=make(tmp_path / "cmapss"),
        folder=tmp_path / "cmapss",
        make=make,
        rows=rows,
        write=write,
        lives=LIVES,
        seen=SEEN,
        after=AFTER,
        modes=MODES,
    )


def orders(folder: Path) -> None:
    """Work orders of three machines in the layout of the excavators: two places on all, one on machine D alone."""
    lines = ["BscStartDate,Asset,OriginalShorttext,PMType,Cost,FuncLocation"]
    says = {
        "BUCKET": ("TOOTH LOST", "WON'T OPEN", "LIP CRACKED", "PIN WORN", "CYL LEAKING"),
        "+Engine": ("WON'T START", "LOSES OIL", "RUNS HOT", "SMOKES", "NO POWER"),
        "O&K RH120C": ("SERVICE", "WASH", "INSPECT", "WEIGH", "MOVE"),
    }
    for place, words in says.items():
        for machine in ("D",) if place.startswith("O&K") else ("C", "D", "E"):
            for side in ("L/H", "R/H", "FRONT", "REAR"):
                lines += [f'2004-07-01,{machine},"{side} {machine} {word}",PM01,9,{place}' for word in words]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "excavators-cleaned.csv").write_text("\n".join(lines))


@pytest.fixture(scope="session")
def write_orders() -> Callable[[Path], None]:
    """Writes work orders in miniature."""
    return orders


@pytest.fixture(scope="session")
def write_connections() -> Callable[[Path], None]:
    """``write_connections(folder)``: the two files of NSL-KDD in miniature, with simulated connections."""
    from stillhouse_industrial.datasets.intrusion import TEST, TRAIN, simulate

    def write(folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for seed, (name, kinds) in enumerate(
            ((TRAIN, ("flood", "scan", "guess", "flood-slow")), (TEST["test-21"], ("flood", "worm")))
        ):
            table = simulate(240, kinds, np.random.default_rng(seed))
            table.to_csv(folder / name, header=False, index=False)

    return write


@pytest.fixture(scope="session")
def write_rig() -> Callable[[Path], None]:
    """``write_rig(folder)``: three experiments of SKAB in miniature, anomalous from second 450 to 500 of 550."""
    import pandas as pd

    from stillhouse_industrial.datasets.skab import SENSORS

    def write(folder: Path) -> None:
        (folder / "valve1").mkdir(parents=True, exist_ok=True)
        for number in range(3):
            random = np.random.default_rng(number)
            table = pd.DataFrame(random.normal(number, 1 + number, (550, 8)).round(4), columns=list(SENSORS))
            table["anomaly"] = ((table.index >= 450) & (table.index < 500)).astype(float)
            table.loc[table["anomaly"] == 1, "Pressure"] += 5.0
            table["changepoint"] = 0.0
            table.insert(0, "datetime", pd.date_range("2020-03-09 10:00", periods=550, freq="s"))
            table.to_csv(folder / "valve1" / f"{number}.csv", sep=";", index=False, lineterminator="\r\n")

    return write
