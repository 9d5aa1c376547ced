"""Results of finished models from what they left in their folders: predictions and weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillhouse.errors import StillhouseError
from stillhouse.evaluation.measure import bytes_on_disk
from stillhouse.evaluation.statistics import ci95, ci95_over_rows
from stillhouse.pipeline.context import RunContext
from stillhouse.storage import read_tensors

MOST_DRAWN = 20_000_000
"""Rows that a bootstrap over test rows draws, about, all draws together."""
MODEL_FILES = ("model.safetensors", "estimator.skops")


def model_bytes(folder: Path) -> int:
    """Bytes of a model's weights on disk."""
    return sum(bytes_on_disk(folder / name) for name in MODEL_FILES if (folder / name).exists())


def judge(context: RunContext, folder: Path, split: str) -> dict[str, float]:
    """Metrics of the predictions that a folder holds for a split."""
    kept = read_tensors(folder / "predictions" / f"{split}.safetensors")
    return context.evaluate(kept.pop("prediction"), kept)


def seed_results(context: RunContext, folder: Path) -> dict[str, Any]:
    """Means over seeds (validation and test), test metrics per seed, and mean and interval of the primary metric."""
    seeds, primary = context.resolved.recipe.seeds, context.head.primary
    per_split = {split: [judge(context, folder / f"seed-{seed}", split) for seed in seeds] for split in ("val", "test")}
    shared = {
        split: [name for name in found[0] if all(name in each for each in found)] for split, found in per_split.items()
    }
    per_seed = {name: [each[name] for each in per_split["test"]] for name in shared["test"]}
    return {
        "metrics": {
            split: {name: float(np.mean([each[name] for each in found])) for name in shared[split]}
            for split, found in per_split.items()
        },
        "seeds": list(seeds),
        "per_seed": per_seed,
        "mean": float(np.mean(per_seed[primary])),
        "ci95": ci95(per_seed[primary], bounds=context.head.bounds),
    }


def ci95_of_estimators(context: RunContext) -> list[float] | None:
    """Interval over test rows of the gain of estimators, as a mean over seeds: what seeds change in them, the order of
    equal splits of a tree, says little of what is left to chance."""
    seeds, head = context.resolved.recipe.seeds, context.head
    kept = {
        name: [
            read_tensors(context.folder / name / f"seed-{seed}" / "predictions" / "test.safetensors") for seed in seeds
        ]
        for name in ("baseline", "student")
    }
    predictions = {name: [each["prediction"] for each in found] for name, found in kept.items()}
    rows = {name: column for name, column in kept["student"][0].items() if name != "prediction"}
    if all(torch.equal(each[0], other) for each in predictions.values() for other in each):
        predictions = {name: found[:1] for name, found in predictions.items()}  # one seed says all

    def gain(drawn: np.ndarray) -> float:
        at = torch.from_numpy(drawn)
        again = {name: column[at] for name, column in rows.items()}
        try:
            means = {
                name: np.mean([head.evaluate(prediction[at], again)[head.primary] for prediction in found])
                for name, found in predictions.items()
            }
        except StillhouseError:
            return math.nan  # a draw with one class only
        return float(means["student"] - means["baseline"]) * (1 if head.higher_is_better else -1)

    count = len(context.splits.test)
    drawn = count * len(predictions["student"])
    return ci95_over_rows(
        gain, count, groups=context.splits.test.groups, resamples=max(200, min(1000, MOST_DRAWN // drawn))
    )
