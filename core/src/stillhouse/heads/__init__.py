"""Core's own task heads, one per output kind of `stillhouse.kinds`."""

from __future__ import annotations

from stillhouse.heads.classification import Binary, Multiclass, Multilabel
from stillhouse.heads.dense import Segmentation, Sequence
from stillhouse.heads.regression import Gaussian, Regression

__all__ = ["Binary", "Gaussian", "Multiclass", "Multilabel", "Regression", "Segmentation", "Sequence"]
