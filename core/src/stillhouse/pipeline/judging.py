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
        "ci95": ci95(per_seed[primary]),
    }


def ci95_of_estimators(context: RunContext) -> list[float] | None:
    """Interval of the gain over test rows, of the first seed's estimators; None where the seeds give one."""
    seeds, head = context.resolved.recipe.seeds, context.head
    first = {}
    for name in ("baseline", "student"):
        kept = [
            read_tensors(context.folder / name / f"seed-{seed}" / "predictions" / "test.safetensors") for seed in seeds
        ]
        if any(not torch.equal(each["prediction"], kept[0]["prediction"]) for each in kept):
            return None
        first[name] = kept[0]
    rows = {name: column for name, column in first["student"].items() if name != "prediction"}

    def gain(drawn: np.ndarray) -> float:
        at = torch.from_numpy(drawn)
        again = {name: column[at] for name, column in rows.items()}
        try:
            values = {name: head.evaluate(kept["prediction"][at], again)[head.primary] for name, kept in first.items()}
        except StillhouseError:
            return math.nan  # a draw with one class only
        return (values["student"] - values["baseline"]) * (1 if head.higher_is_better else -1)

    count = len(context.splits.test)
    return ci95_over_rows(
        gain, count, groups=context.splits.test.groups, resamples=max(200, min(1000, MOST_DRAWN // count))
    )
