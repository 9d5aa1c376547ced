"""Objectives: knowledge-distillation losses, and the small parts around them, for any training loop.

They are functions of tensors and know nothing of names, paths or recipes::

    soft = SoftTargets(temperature=4.0)
    loss, parts = combined_loss(hard, [("soft", 1.0, soft(student_logits, teacher_logits))], alpha=0.3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.objectives.adapters import make_adapter
    from stillhouse.objectives.classes import DIST, DKD, NormalisedKD, StandardisedLogits
    from stillhouse.objectives.combine import combined_loss
    from stillhouse.objectives.contrastive import SupervisedContrastive
    from stillhouse.objectives.correlation import CorrelationAware
    from stillhouse.objectives.dense import ChannelKL, PixelKL, TokenKL
    from stillhouse.objectives.encoder import AttentionScores, CosineEmbedding, FeatureMaps
    from stillhouse.objectives.feature import NST, PKT, VID, AttentionTransfer, Hints, Relational, SimilarityPreserving
    from stillhouse.objectives.prediction import BernoulliKL, GaussianKL, SoftTargets, TeacherBounded, TeacherMSE
    from stillhouse.objectives.remembered import CRCKD, CRD
    from stillhouse.objectives.schedule import Schedule, parse_schedule

__all__ = [
    "CRCKD",
    "CRD",
    "DIST",
    "DKD",
    "NST",
    "PKT",
    "VID",
    "AttentionScores",
    "AttentionTransfer",
    "BernoulliKL",
    "ChannelKL",
    "CorrelationAware",
    "CosineEmbedding",
    "FeatureMaps",
    "GaussianKL",
    "Hints",
    "NormalisedKD",
    "PixelKL",
    "Relational",
    "Schedule",
    "SimilarityPreserving",
    "SoftTargets",
    "StandardisedLogits",
    "SupervisedContrastive",
    "TeacherBounded",
    "TeacherMSE",
    "TokenKL",
    "combined_loss",
    "make_adapter",
    "parse_schedule",
]

_HOMES = {
    "StandardisedLogits": "classes",
    "NormalisedKD": "classes",
    "CorrelationAware": "correlation",
    "VID": "feature",
    "PKT": "feature",
    "NST": "feature",
    "CRD": "remembered",
    "CRCKD": "remembered",
    "AttentionScores": "encoder",
    "AttentionTransfer": "feature",
    "BernoulliKL": "prediction",
    "ChannelKL": "dense",
    "CosineEmbedding": "encoder",
    "DIST": "classes",
    "DKD": "classes",
    "FeatureMaps": "encoder",
    "GaussianKL": "prediction",
    "Hints": "feature",
    "PixelKL": "dense",
    "Relational": "feature",
    "Schedule": "schedule",
    "SimilarityPreserving": "feature",
    "SoftTargets": "prediction",
    "SupervisedContrastive": "contrastive",
    "TeacherBounded": "prediction",
    "TeacherMSE": "prediction",
    "TokenKL": "dense",
    "combined_loss": "combine",
    "make_adapter": "adapters",
    "parse_schedule": "schedule",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: what reads recipes needs the schedules of this room, and not torch.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"stillhouse.objectives.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'stillhouse.objectives' has no attribute '{name}'")
