"""Breast Cancer Wisconsin (Diagnostic), which scikit-learn ships: real measurements of cell nuclei."""

from __future__ import annotations

import numpy as np
import torch

from stillhouse.types import DataContext, DataInfo, Splits, TensorSpec, TensorSplit


def breast_cancer(context: DataContext, *, val_fraction: float = 0.2, test_fraction: float = 0.3) -> Splits:
    """Malignant or benign, from 30 measurements of the nuclei in a fine-needle aspirate of 569 patients.

    The positive class is malignant. Measurements are standardised by the training rows; splits are stratified.

    Args:
        context: the seed of the split.
        val_fraction: share of the rows for validation.
        test_fraction: share of the rows for test.

    Raises:
        ValueError: the fractions leave a split empty.
    """
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    data = load_breast_cancer()
    target = (data.target == 0).astype(np.float32)  # scikit-learn numbers malignant 0
    rows = np.arange(len(target))
    rest, test = train_test_split(rows, test_size=test_fraction, stratify=target, random_state=context.seed)
    train, val = train_test_split(
        rest, test_size=val_fraction / (1 - test_fraction), stratify=target[rest], random_state=context.seed
    )
    mean, std = data.data[train].mean(axis=0), data.data[train].std(axis=0)
    values = ((data.data - mean) / std).astype(np.float32)

    def part(chosen: np.ndarray) -> TensorSplit:
        chosen = np.sort(chosen)
        return TensorSplit(
            {
                "measurements": torch.from_numpy(values[chosen]),
                "target": torch.from_numpy(target[chosen]),
                "index": torch.from_numpy(chosen),
            }
        )

    malignant = int(target[train].sum())
    info = DataInfo(
        inputs={"measurements": TensorSpec((values.shape[1],))},
        classes=("benign", "malignant"),
        class_counts=(len(train) - malignant, malignant),
        description="Breast Cancer Wisconsin (Diagnostic): measurements of cell nuclei",
        meta={"task": "binary", "measurements": [str(name) for name in data.feature_names]},
    )
    return Splits(info=info, train=part(train), val=part(val), test=part(test))
