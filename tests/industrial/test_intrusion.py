"""Network intrusion: what models see of a connection, kinds that are held out, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import stillhouse
from stillhouse.errors import DataError
from stillhouse.types import DataContext
from stillhouse_industrial.datasets.intrusion import (
    COLUMNS,
    LEVELS,
    NUMBERS,
    TEST,
    TRAIN,
    ConnectionReader,
    Encoding,
    intrusion_sim,
    nsl_kdd,
    read,
    simulate,
)


@pytest.fixture
def official(tmp_path: Path, write_connections: Callable[[Path], None]) -> DataContext:
    write_connections(tmp_path)
    return DataContext(root=tmp_path, base=tmp_path, seed=3)


def test_rows_of_training_and_test_are_those_of_their_files(official: DataContext) -> None:
    splits = nsl_kdd(official)
    known, test = (read(official.root / name) for name in (TRAIN, TEST["test-21"]))
    index = torch.cat([splits.train.index(), splits.val.index()]).sort().values
    assert index.tolist() == list(range(len(known)))
    assert len(splits.test) == len(test)
    target = splits.test.columns(["target"])["target"]
    assert target.tolist() == (test["attack"] != "normal").astype(int).tolist()


def test_kinds_are_held_out_whole_and_the_commonest_trains(official: DataContext) -> None:
    kinds = read(official.root / TRAIN)["attack"].to_numpy()
    counts = pd.Series(kinds[kinds != "normal"]).value_counts()
    for seed in range(4):
        splits = nsl_kdd(DataContext(root=official.root, base=official.root, seed=seed), val_kinds=0.4)
        trained = set(kinds[splits.train.index().numpy()])
        held = set(kinds) - trained
        assert len(held) == round(0.4 * len(counts)) == 2
        assert counts.index[0] in trained
        assert "normal" in kinds[splits.val.index().numpy()]
        assert all(kind in splits.info.description for kind in held)
    whole = nsl_kdd(official, val_kinds=0.0)
    assert set(kinds[whole.train.index().numpy()]) == set(kinds)


def test_numbers_are_standardised_by_training_rows_and_unknown_levels_are_zeros() -> None:
    table = simulate(300, ("flood", "scan"), np.random.default_rng(0))
    encoding = Encoding.fit(table[:200])
    values = encoding(table[:200])
    assert values.shape[1] == len(NUMBERS) + sum(table[:200][name].nunique() for name in LEVELS)
    at = NUMBERS.index("src_bytes")
    logs = np.log1p(table["src_bytes"].to_numpy())
    expected = (logs - logs[:200].mean()) / logs[:200].std()
    np.testing.assert_allclose(encoding(table)[:, at], expected.clip(-10, 10), rtol=1e-4, atol=1e-5)
    other = table[:1].assign(service="never seen")
    services = slice(len(NUMBERS) + table["protocol_type"].nunique(), None)
    assert encoding(other)[0, services].sum() == 1.0  # the flag alone


def test_a_new_file_is_read_as_training_rows_were(official: DataContext) -> None:
    splits = nsl_kdd(official)
    assert isinstance(splits.reader, ConnectionReader)
    again = ConnectionReader.from_state(splits.reader.state())
    rows, columns = again.read(official.root / TEST["test-21"])
    assert torch.equal(rows.columns(["x"])["x"], splits.test.columns(["x"])["x"])
    assert columns["row"][:2] == [1, 2]
    bare = read(official.root / TEST["test-21"])[list(COLUMNS)]
    bare.to_csv(official.root / "new.txt", header=False, index=False)
    assert torch.equal(again.read(official.root / "new.txt")[0].columns(["x"])["x"], rows.columns(["x"])["x"])


def test_what_is_wrong_with_a_file_is_told(official: DataContext) -> None:
    table = read(official.root / TRAIN)
    bad = table.astype({"src_bytes": object})
    bad.loc[4, "src_bytes"] = "many"
    bad.to_csv(official.root / TRAIN, header=False, index=False)
    with pytest.raises(DataError, match="row 5, column 'src_bytes'"):
        nsl_kdd(official)
    table.iloc[:, :10].to_csv(official.root / TRAIN, header=False, index=False)
    with pytest.raises(DataError, match="10 columns"):
        nsl_kdd(official)
    (official.root / TRAIN).unlink()
    with pytest.raises(DataError, match=r"KDDTrain\+_20Percent.txt is not there"):
        nsl_kdd(official)
    for options in ({"val_fraction": 0.0}, {"val_kinds": 1.0}):
        with pytest.raises(DataError, match="leave no split"):
            intrusion_sim(DataContext(root=official.root, base=official.root), **options)


def test_the_simulator_depends_on_its_seed_alone_and_the_demo_learns(tmp_path: Path) -> None:
    one, two, three = (intrusion_sim(DataContext(root=tmp_path, base=tmp_path, seed=seed)) for seed in (1, 1, 2))
    assert one.train.fingerprint() == two.train.fingerprint() != three.train.fingerprint()
    summary = stillhouse.run(
        "industrial/intrusion-demo",
        out=tmp_path / "run",
        overrides=["dataset.rows=400", "train.student.epochs=6", "evaluate.latency_samples=10"],
        seeds=[0],
        stop_after="evaluate",
    ).summary
    assert summary["dataset"]["simulated"]
    assert 0.6 < summary["student"]["metrics"]["test"]["balanced_accuracy"] <= 1
    assert set(summary["student"]["metrics"]["test"]) >= {"auc", "detection_rate", "false_alarm_rate"}
