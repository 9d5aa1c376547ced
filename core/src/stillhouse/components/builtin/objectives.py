"""The core's objectives: names, the kinds of output they fit, and why they do not fit the others."""

from __future__ import annotations

from collections.abc import Iterable

from stillhouse.components.builtin.kinds import (
    BINARY,
    GAUSSIAN,
    MULTICLASS,
    MULTILABEL,
    REGRESSION,
    SEGMENTATION,
    SEQUENCE,
)
from stillhouse.plugins.hookspecs import hookimpl
from stillhouse.plugins.specs import ObjectiveSpec

NOT_CLASSES: dict[str, str] = {
    REGRESSION: "a softmax over values has no meaning: use teacher-mse or teacher-bounded",
    GAUSSIAN: "a softmax over means and variances has no meaning: use gaussian-kl",
    MULTILABEL: "labels do not exclude each other, so a softmax over them has no meaning: use bernoulli-kl",
    SEGMENTATION: "the classes of a segmentation are judged per pixel: use pixel-kl or channel-kl",
    SEQUENCE: "the tokens of a sequence are judged one by one, with padding left out: use token-kl",
}
ONE_LOGIT: dict[str, str] = {
    BINARY: "a binary head has a single logit, and a softmax over it is constant: use bernoulli-kl"
}
TWO_CLASSES: dict[str, str] = {
    BINARY: "it says how the wrong classes relate, and with two classes there is one: use bernoulli-kl"
}
NOT_VALUES: dict[str, str] = {
    MULTICLASS: "logits are not values, their offset is arbitrary: use soft-targets",
    BINARY: "a logit is not a value to reach: use bernoulli-kl",
    MULTILABEL: "logits are not values to reach: use bernoulli-kl",
    SEGMENTATION: "logits are not values, their offset is arbitrary: use pixel-kl",
    SEQUENCE: "logits are not values, their offset is arbitrary: use token-kl",
}


@hookimpl
def stillhouse_objectives() -> Iterable[ObjectiveSpec]:
    """Soft losses for every output kind, and losses between features."""
    rooms = "stillhouse.objectives"
    yield ObjectiveSpec(
        name="soft-targets",
        target=f"{rooms}.prediction:SoftTargets",
        summary="KL divergence from the teacher's softened classes, times T squared",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | ONE_LOGIT,
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="bernoulli-kl",
        target=f"{rooms}.prediction:BernoulliKL",
        summary="KL divergence of each label from the teacher's softened probability, times T squared",
        kinds=(BINARY, MULTILABEL),
        incompatible={
            MULTICLASS: "classes exclude each other: use soft-targets",
            REGRESSION: "values are not probabilities: use teacher-mse or teacher-bounded",
            GAUSSIAN: "values are not probabilities: use gaussian-kl",
            SEGMENTATION: "the classes of a pixel exclude each other: use pixel-kl",
            SEQUENCE: "the tokens of a position exclude each other: use token-kl",
        },
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="teacher-mse",
        target=f"{rooms}.prediction:TeacherMSE",
        summary="Mean squared difference from the teacher's values",
        kinds=(REGRESSION,),
        incompatible=NOT_VALUES | {GAUSSIAN: "a log-variance is not a value to reach: use gaussian-kl"},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="teacher-bounded",
        target=f"{rooms}.prediction:TeacherBounded",
        summary="Squared error that counts only while the student is not clearly better than the teacher",
        kinds=(REGRESSION,),
        incompatible=NOT_VALUES | {GAUSSIAN: "a log-variance is not a value to reach: use gaussian-kl"},
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="gaussian-kl",
        target=f"{rooms}.prediction:GaussianKL",
        summary="KL divergence between the teacher's and the student's Gaussians",
        kinds=(GAUSSIAN,),
        incompatible=NOT_VALUES | {REGRESSION: "it needs a predicted variance: use teacher-mse, or a gaussian head"},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    per_place: dict[str, str] = {
        MULTICLASS: "there is one prediction per row: use soft-targets",
        BINARY: "there is one logit per row: use bernoulli-kl",
        MULTILABEL: "labels do not exclude each other: use bernoulli-kl",
        REGRESSION: NOT_CLASSES[REGRESSION],
        GAUSSIAN: NOT_CLASSES[GAUSSIAN],
    }
    yield ObjectiveSpec(
        name="pixel-kl",
        target=f"{rooms}.dense:PixelKL",
        summary="KL divergence from the teacher's softened classes at every pixel",
        kinds=(SEGMENTATION,),
        incompatible=per_place | {SEQUENCE: NOT_CLASSES[SEQUENCE]},
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="channel-kl",
        target=f"{rooms}.dense:ChannelKL",
        summary="KL divergence from where in the image the teacher sees each class",
        kinds=(SEGMENTATION,),
        incompatible=per_place | {SEQUENCE: NOT_CLASSES[SEQUENCE]},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="token-kl",
        target=f"{rooms}.dense:TokenKL",
        summary="Forward, reverse or Jensen-Shannon divergence from the teacher at every valid token",
        kinds=(SEQUENCE,),
        incompatible=per_place | {SEGMENTATION: NOT_CLASSES[SEGMENTATION]},
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="dkd",
        target=f"{rooms}.classes:DKD",
        summary="Decoupled KD: the target class and the other classes weighted apart",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | TWO_CLASSES,
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="dist",
        target=f"{rooms}.classes:DIST",
        summary="Correlation with the teacher between the classes of a row and between the rows of a class",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | TWO_CLASSES,
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="standardised-logits",
        target=f"{rooms}.classes:StandardisedLogits",
        summary="Soft targets of logits that are standardised row by row: order and proportions, not the range",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | {BINARY: "two standardised logits are always the same: use bernoulli-kl"},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="normalised-kd",
        target=f"{rooms}.classes:NormalisedKD",
        summary="The true class by the teacher's confidence, the others as their own distribution; or labels made anew",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | TWO_CLASSES,
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="correlation-aware",
        target=f"{rooms}.correlation:CorrelationAware",
        summary="Difference between distances and overlaps among the Gaussians that a batch is given",
        kinds=(GAUSSIAN,),
        incompatible=dict.fromkeys(
            (MULTICLASS, BINARY, MULTILABEL, REGRESSION, SEGMENTATION, SEQUENCE),
            "it compares predicted Gaussians, and needs a gaussian head",
        ),
        tags=("prediction",),
    )
    yield from _feature_objectives()


def _feature_objectives() -> Iterable[ObjectiveSpec]:
    module = "stillhouse.objectives.feature"
    yield ObjectiveSpec(
        name="hints",
        target=f"{module}:Hints",
        summary="Mean squared difference between features, after an adapter",
        level="feature",
        extras=("mask",),
        adapts=True,
        tags=("feature",),
    )
    yield ObjectiveSpec(
        name="vid",
        target=f"{module}:VID",
        summary="Likelihood of the teacher's feature, with a learned variance for each channel (VID)",
        level="feature",
        extras=("mask",),
        adapts=True,
        tags=("feature",),
    )
    for name, attribute, summary in (
        (
            "attention-transfer",
            "AttentionTransfer",
            "Difference between where in space the features are large",
        ),
        (
            "similarity-preserving",
            "SimilarityPreserving",
            "Difference between the similarities of the rows of a batch",
        ),
        (
            "relational",
            "Relational",
            "Difference between distances and angles among the rows of a batch",
        ),
        (
            "pkt",
            "PKT",
            "Divergence between probabilities that rows of a batch are neighbours (probabilistic transfer)",
        ),
        (
            "nst",
            "NST",
            "Discrepancy between the sets of channel maps (neuron selectivity transfer)",
        ),
    ):
        yield ObjectiveSpec(
            name=name,
            target=f"{module}:{attribute}",
            summary=summary,
            level="feature",
            tags=("feature",),
        )
    for name, attribute, summary in (
        ("cosine-embedding", "CosineEmbedding", "Difference between the directions of hidden states (DistilBERT)"),
        ("feature-maps", "FeatureMaps", "Difference of standardised maps, their means and variances (MobileBERT)"),
        ("attention-scores", "AttentionScores", "Difference between where tokens look, before the softmax (TinyBERT)"),
    ):
        yield ObjectiveSpec(
            name=name,
            target=f"stillhouse.objectives.encoder:{attribute}",
            summary=summary,
            level="feature",
            extras=("mask",),
            adapts=True,
            tags=("feature", "text"),
        )
    yield ObjectiveSpec(
        name="supervised-contrastive",
        target="stillhouse.objectives.contrastive:SupervisedContrastive",
        summary="Answers or features drawn to the teacher's of the same class, and away from other classes",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES
        | dict.fromkeys((BINARY, MULTILABEL, SEGMENTATION, SEQUENCE), "its target must be one class a row"),
        extras=("target", "index"),
        adapts=True,
        tags=("prediction", "feature"),
    )
    for name, attribute, summary in (
        ("crd", "CRD", "A row told from remembered rows by its student and teacher feature (contrastive, memory bank)"),
        ("crckd", "CRCKD", "Class-guided contrast with a memory bank, and relations to the centres of the classes"),
    ):
        yield ObjectiveSpec(
            name=name,
            target=f"stillhouse.objectives.remembered:{attribute}",
            summary=summary,
            level="feature",
            extras=("target", "index"),
            tags=("feature", "memory"),
        )
