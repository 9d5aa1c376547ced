"""Standardising columns, fitted on training rows only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class Scaler:
    """``(value - mean) / std`` of each column; a column that does not vary is only centred.

    Args:
        names: of the columns.
        mean: of each column.
        std: of each column, 1 where it does not vary.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def fit(cls, names: Sequence[str], values: np.ndarray) -> Self:
        """Mean and standard deviation of ``values`` ``[N, F]``."""
        std = values.std(axis=0)
        return cls(tuple(names), tuple(values.mean(axis=0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """``[N, F]`` standardised, float32."""
        scaled: np.ndarray = ((values - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        return scaled

    def meta(self) -> dict[str, Any]:
        """What `DataInfo.meta` says of the columns, for the rules of a tree: names, and how to undo the scaling."""
        return {
            "feature_names": list(self.names),
            "feature_mean": list(self.mean),
            "feature_std": list(self.std),
        }

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {"names": list(self.names), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`."""
        return cls(*(tuple(state[name]) for name in ("names", "mean", "std")))
