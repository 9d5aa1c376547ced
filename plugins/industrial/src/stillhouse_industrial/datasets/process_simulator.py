"""A small seeded process under control, two tanks and a heater, with faults that can set in; offline."""

from __future__ import annotations

import numpy as np

from stillhouse.errors import DataError
from stillhouse.types import DataContext, Splits
from stillhouse_industrial.datasets.runs import Run, build_runs, check_window, run_of

VARIABLES = (
    "level_1",
    "level_2",
    "temperature_1",
    "temperature_2",
    "feed",
    "flow_12",
    "outflow",
    "valve_1",
    "valve_2",
    "heater",
)
CLASSES = (
    "normal",
    "cold feed",
    "unsteady feed",
    "low pressure",
    "leak",
    "stuck valve",
    "fouled heater",
    "drifting sensor",
)
STEPS = 5
"""Steps of integration between two samples."""
NOISE = np.array([0.01, 0.01, 0.15, 0.15, 0.001, 0.001, 0.001, 0.004, 0.004, 0.004])
"""Standard deviation of the measurement noise of each variable."""


def simulate(faults: np.ndarray, samples: int, onset: int, seed: int) -> np.ndarray:
    """Signals ``[runs, samples, 10]`` of as many runs as ``faults`` has numbers (of `CLASSES`), each at its sample
    ``onset``.

    Feed flows through a valve into tank 1, from there into tank 2, which is heated, and out through a second valve.
    Levels and temperature are kept by three PI controllers, so that most faults show in what the controllers do rather
    than in what they control. Torricelli outflow, perfect mixing, explicit Euler. A fault's strength varies by run.
    """
    random = np.random.default_rng(seed)
    runs = len(faults)
    strength = random.uniform(0.5, 1.5, runs)
    level_1, level_2 = np.ones(runs), np.ones(runs)
    temperature_1, temperature_2 = np.full(runs, 20.0), np.full(runs, 50.0)
    integral = np.zeros((3, runs))
    pressure, feed_temperature, shaking = np.zeros(runs), np.zeros(runs), np.zeros(runs)
    stuck = np.zeros(runs)
    made = np.empty((runs, samples, len(VARIABLES)))

    def on(fault: str, sample: int) -> np.ndarray:
        return strength * ((faults == CLASSES.index(fault)) & (sample >= onset))

    for sample in range(samples):
        age = max(0, sample - onset)
        pressure = 0.95 * pressure + random.normal(0, 0.01, runs)
        feed_temperature = 0.95 * feed_temperature + random.normal(0, 0.15, runs)
        shaking = 0.5 * shaking + random.normal(0, 1.0, runs)
        cold = 20.0 + feed_temperature - 2.0 * on("cold feed", sample) + 1.2 * shaking * on("unsteady feed", sample)
        push = 0.2 * (1.0 + pressure - 0.1 * on("low pressure", sample))
        heat = 6.0 * (1.0 - 0.2 * (1.0 - np.exp(-age / 30)) * on("fouled heater", sample))
        drift = 0.0015 * age * on("drifting sensor", sample)
        for _ in range(STEPS):
            errors = np.stack([1.0 - level_1, (level_2 + drift) - 1.0, 50.0 - temperature_2])
            integral = np.clip(integral + errors / STEPS, -40, 40)
            control = 0.5 + np.array([[0.8], [0.8], [0.05]]) * (errors + integral / 10.0)
            valve_1, valve_2, heater = np.clip(control, 0.0, 1.0)
            holds = on("stuck valve", sample) > 0
            if sample <= onset:
                stuck = valve_2 + 0.06 * (strength - 1.0)
            valve_2 = np.where(holds, stuck, valve_2)
            feed, flow = push * valve_1, 0.1 * np.sqrt(level_1)
            outflow = 0.2 * valve_2 * np.sqrt(level_2)
            leak = 0.01 * on("leak", sample) * np.sqrt(level_1)
            temperature_1 = temperature_1 + feed * (cold - temperature_1) / level_1 / STEPS
            gain = flow * (temperature_1 - temperature_2) + heat * heater
            temperature_2 = temperature_2 + gain / level_2 / STEPS
            level_1 = np.clip(level_1 + (feed - flow - leak) / STEPS, 0.05, 3.0)
            level_2 = np.clip(level_2 + (flow - outflow) / STEPS, 0.05, 3.0)
        made[:, sample] = np.stack(
            [level_1, level_2 + drift, temperature_1, temperature_2, feed, flow, outflow, valve_1, valve_2, heater],
            axis=1,
        )
    return made + random.normal(0, 1, made.shape) * NOISE


def process_sim(
    context: DataContext,
    *,
    runs: int = 12,
    val_runs: int = 4,
    test_runs: int = 8,
    unlabelled_runs: int = 0,
    samples: int = 80,
    onset: int = 30,
    window: int = 20,
    stride: int = 2,
) -> Splits:
    """A simulated process with seven faults, whole runs in each split; not real data.

    Args:
        context: gives the seed.
        runs: training runs of each class.
        val_runs: validation runs of each class.
        test_runs: test runs of each class.
        unlabelled_runs: further runs of each class, which nobody has diagnosed; only soft losses see them.
        samples: samples of a run.
        onset: sample at which its fault sets in.
        window: samples that a model sees.
        stride: samples between neighbouring windows.

    Raises:
        DataError: the options leave no rows of a class.
    """
    check_window(window, stride)
    if min(runs, val_runs, test_runs) < 1 or unlabelled_runs < 0 or not window <= onset < samples:
        raise DataError(
            "the simulator needs at least one run of each class in each split, and window <= onset < samples",
            fix="leave these options at their defaults, or raise runs or samples",
        )
    made: list[list[Run]] = []
    row = 0
    counts = {"train": runs, "val": val_runs, "test": test_runs, "unlabelled": unlabelled_runs}
    for number, (name, count) in enumerate(counts.items()):
        faults = np.repeat(np.arange(len(CLASSES)), count)
        signals = simulate(faults, samples, onset, seed=len(counts) * context.seed + number)
        parts = []
        for position, fault in enumerate(faults):
            labels = np.where(np.arange(samples) < onset, 0, fault)
            parts.append(run_of(f"{name}-{position}", signals[position], labels, row))
            row += samples
        made.append(parts)
    return build_runs(
        *made,
        classes=CLASSES,
        variables=VARIABLES,
        window=window,
        stride=stride,
        test_stride=stride,
        simulated=True,
        description=f"simulated process (not real data): windows of {window} samples, {len(CLASSES) - 1} faults",
    )
