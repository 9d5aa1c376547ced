"""Objectives: knowledge-distillation losses, and the small parts around them, for any training loop.

They are functions of tensors and know nothing of names, paths or recipes::

    soft = SoftTargets(temperature=4.0)
    loss, parts = combined_loss(hard, [("soft", 1.0, soft(student_logits, teacher_logits))], alpha=0.3)
"""

from stillhouse.objectives.adapters import make_adapter
from stillhouse.objectives.combine import combined_loss
from stillhouse.objectives.contrastive import SupervisedContrastive
from stillhouse.objectives.encoder import AttentionScores, CosineEmbedding, FeatureMaps
from stillhouse.objectives.feature import NST, PKT, VID, AttentionTransfer, Hints, Relational, SimilarityPreserving
from stillhouse.objectives.prediction import (
    DIST,
    DKD,
    BernoulliKL,
    ChannelKL,
    CorrelationAware,
    GaussianKL,
    NormalisedKD,
    PixelKL,
    SoftTargets,
    StandardisedLogits,
    TeacherBounded,
    TeacherMSE,
    TokenKL,
)
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
