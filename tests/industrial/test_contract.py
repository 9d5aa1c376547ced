"""The plugin keeps the contract, on the embedded data and on tiny files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stillhouse.testing
from stillhouse.types import DataContext

DATA = Path(tempfile.gettempdir()) / f"stillhouse-industrial-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def samples(
    write_official: Callable[..., DataContext],
    write_orders: Callable[..., None],
    write_connections: Callable[[Path], None],
    write_rig: Callable[[Path], None],
) -> Iterator[None]:
    """Official files in miniature, and some of a user's own."""
    for number in range(1, 5):
        write_official(DATA / "industrial" / "cmapss", f"FD00{number}")
    random = np.random.default_rng(0)
    process = DATA / "industrial" / "tennessee-eastman"
    process.mkdir()
    for number in (0, 1, 4):
        train = random.normal(number, 1, (60, 52))
        np.savetxt(process / f"d{number:02d}.dat", train.T if number == 0 else train)
        np.savetxt(process / f"d{number:02d}_te.dat", random.normal(number, 1, (180, 52)))
    history = [
        pd.DataFrame({"unit": unit, "time": np.arange(40), "vibration": random.normal(size=40).cumsum()})
        for unit in range(10)
    ]
    pd.concat(history).to_csv(DATA / "pumps.csv", index=False)
    runs = [
        pd.DataFrame({"run": run, "fault": ("normal", "leak")[run % 2], "flow": random.normal(run % 2, 1, 40)})
        for run in range(12)
    ]
    pd.concat(runs).to_csv(DATA / "runs.csv", index=False)
    write_orders(DATA / "industrial" / "excavators-mwo")
    write_connections(DATA / "industrial" / "nsl-kdd")
    write_rig(DATA / "industrial" / "skab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLHOUSE_DATA", str(DATA))
        yield
    shutil.rmtree(DATA)


test_contract = stillhouse.testing.contract(
    "industrial",
    options={
        "industrial/cmapss": {"window": 10},
        "industrial/run-to-failure": {"path": str(DATA / "pumps.csv"), "window": 10},
        "industrial/tennessee-eastman": {"faults": [1, 4], "window": 10, "val_fraction": 0.3},
        "industrial/work-orders": {},
        "industrial/nsl-kdd": {},
        "industrial/skab": {"val": ["valve1/1"], "test": ["valve1/2"], "window": 10, "stride": 5},
        "industrial/process-runs": {"path": str(DATA / "runs.csv"), "window": 10},
    },
)
