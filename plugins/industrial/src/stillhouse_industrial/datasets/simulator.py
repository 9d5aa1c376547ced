"""A small seeded simulator of turbofan degradation, in the columns of C-MAPSS, offline."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets import tables
from stillhouse_industrial.datasets.cmapss import with_remaining
from stillhouse_industrial.datasets.reader import SignalReader
from stillhouse_industrial.datasets.windows import Scaler, build, check_options, hold_out

SHORTEST, LONGEST = 90, 220
"""Lives of simulated engines, in cycles."""


def simulate(units: int, sensors: int, noise: float, seed: int) -> pd.DataFrame:
    """Histories of engines run to failure: columns ``unit``, ``cycle``, ``setting_1..3``, ``sensor_1..N``.

    Wear grows as in Saxena et al. (PHM 2008, equation 5), exponentially in time: ``w(t) = w0 + exp(a (t - T))
    - exp(-a T)`` with a life ``T``, a rate ``a`` and a manufacturing deviation ``w0`` of its own for each
    unit; the unit fails at ``T``. Each sensor is a fixed response to wear (linear with a curved part) and to
    two small settings, plus white noise.

    Args:
        units: number of engines.
        sensors: number of sensors.
        noise: standard deviation of the measurement noise, as a share of a sensor's response to full wear.
        seed: of engines and noise. The sensors' responses are the same for every seed: one type of engine.
    """
    engine_type = np.random.default_rng(1234)
    gain = engine_type.uniform(0.6, 1.4, sensors) * engine_type.choice([-1.0, 1.0], sensors)
    curve, level = engine_type.uniform(0.0, 0.6, sensors), engine_type.uniform(5.0, 600.0, sensors)
    by_setting, unit_of_sensor = (
        engine_type.normal(0.0, 0.05, (2, sensors)),
        engine_type.uniform(0.2, 8.0, sensors),
    )
    random = np.random.default_rng(seed)
    frames = []
    for unit in range(1, units + 1):
        life = int(random.integers(SHORTEST, LONGEST + 1))
        rate = random.uniform(3.0, 5.0) / life
        cycle = np.arange(1, life + 1)
        wear = random.uniform(0.0, 0.05) + np.exp(rate * (cycle - life)) - np.exp(-rate * life)
        settings = random.normal(0.0, 1.0, (life, 2))
        response = wear[:, None] * gain * (1.0 + curve * wear[:, None]) + settings @ by_setting
        values = level + unit_of_sensor * (response + random.normal(0.0, noise, (life, sensors)))
        columns = {"unit": np.full(life, unit), "cycle": cycle}
        columns |= dict(zip(tables.SETTINGS, (*(settings.T * 0.002), np.full(life, 100.0)), strict=True))
        frames.append(pd.DataFrame(columns | {f"sensor_{k + 1}": values[:, k] for k in range(sensors)}))
    return pd.concat(frames, ignore_index=True)


def turbofan_sim(
    context: DataContext,
    *,
    units: int = 40,
    test_units: int = 40,
    sensors: int = 8,
    noise: float = 0.15,
    window: int = 30,
    stride: int = 1,
    cap: float | None = 125.0,
    val_fraction: float = 0.2,
    cuts: int = 20,
    first: int | None = None,
) -> Splits:
    """Simulated turbofan engines, cut and split as C-MAPSS is; not real data.

    Args:
        context: gives the seed.
        units: engines run to failure, for training and validation.
        test_units: engines truncated at a random cycle, for testing.
        sensors: sensors of an engine.
        noise: measurement noise, as a share of a sensor's response to full wear.
        window: cycles that a model sees.
        stride: cycles between neighbouring training windows.
        cap: largest RUL; None keeps the full value.
        val_fraction: share of ``units`` held out for validation.
        cuts: random truncations of each validation unit.
        first: fewest rows seen at a training window or truncation; below ``window`` these are padded in front,
            as a young unit's are. By default ``window``.

    Raises:
        DataError: the options leave no rows.
    """
    check_options(window, stride, cuts, cap, first)
    if min(units, test_units, sensors) < 1 or units < 2 or val_fraction <= 0:
        raise DataError(
            "the simulator needs units >= 2, test_units >= 1, sensors >= 1 and val_fraction > 0",
            fix="leave these options at their defaults, or raise them",
        )
    names = [f"sensor_{number + 1}" for number in range(sensors)]
    random = np.random.default_rng([context.seed, 7])
    layout = {
        "unit": "unit",
        "time": "cycle",
        "sensors": names,
        "settings": tables.SETTINGS,
        "where": "turbofan-sim",
        "first_row": 1,
    }
    history = simulate(units, sensors, noise, seed=2 * context.seed)
    lives = simulate(test_units, sensors, noise, seed=2 * context.seed + 1)
    length = lives.groupby("unit")["cycle"].transform("max").to_numpy()
    # As in C-MAPSS, between a tenth and nearly all of an engine's life has passed when its record ends.
    until = (
        lives["unit"].map(pd.Series(random.uniform(0.15, 0.97, test_units), index=range(1, test_units + 1))).to_numpy()
    )
    seen = lives[lives["cycle"].to_numpy() <= np.maximum(np.floor(until * length), 1)]
    remaining = lives.groupby("unit").size().to_numpy() - seen.groupby("unit").size().to_numpy()
    train, val = hold_out(tables.units_of(history, prefix="train-", **layout), val_fraction, random)
    test = with_remaining(
        tables.units_of(seen.reset_index(drop=True), prefix="test-", first_index=len(history), **layout),
        remaining,
    )
    scaler = Scaler.fit(train)
    splits = build(
        train,
        val,
        test,
        scaler,
        window=window,
        stride=stride,
        cap=cap,
        cuts=cuts,
        test_cuts=None,
        first=first,
        random=random,
        sensors=names,
        unit="cycles",
        simulated=True,
        description=f"simulated turbofans (not real data): windows of {window} cycles, {sensors} sensors",
    )
    reader = SignalReader(
        window=window, sensors=names, settings=tables.SETTINGS, scaler=scaler, unit="unit", time="cycle"
    )
    return Splits(
        info=splits.info,
        train=splits.train,
        val=splits.val,
        test=splits.test,
        reader=reader,
    )
