"""The core's task heads, one for each kind of output, and the metrics beside those of the heads."""

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
from stillhouse.plugins.specs import HeadSpec, MetricSpec


@hookimpl
def stillhouse_heads() -> Iterable[HeadSpec]:
    """One head per output kind."""
    for output, attribute, primary, higher, summary in (
        (MULTICLASS, "Multiclass", "accuracy", True, "One of several classes that exclude each other"),
        (BINARY, "Binary", "average_precision", True, "Yes or no, from one logit"),
        (MULTILABEL, "Multilabel", "map", True, "Any number of labels, each yes or no"),
        (REGRESSION, "Regression", "rmse", False, "One or several values"),
        (GAUSSIAN, "Gaussian", "rmse", False, "One or several values, each with its predicted variance"),
        (SEGMENTATION, "Segmentation", "dice", True, "A class for every pixel"),
        (SEQUENCE, "Sequence", "token_accuracy", True, "A token for every position"),
    ):
        yield HeadSpec(
            name=str(output),
            target=f"stillhouse.heads:{attribute}",
            summary=summary,
            output=output,
            primary=primary,
            higher_is_better=higher,
        )

    for name, attribute, primary, summary in (
        ("generation", "Generation", "rouge_l", "A text that is written after one that is read, judged by ROUGE"),
        ("translation", "Translation", "bleu", "A text that is written after one that is read, judged by BLEU"),
    ):
        yield HeadSpec(
            name=name,
            target=f"stillhouse.text.heads:{attribute}",
            summary=summary,
            output=SEQUENCE,
            primary=primary,
            higher_is_better=True,
            requires=("tokenizers", "rouge_score", "sacrebleu"),
            extra="text",
            tags=("text", "writes"),
        )
    yield HeadSpec(
        name="tagging",
        target="stillhouse.text.heads:Tagging",
        summary="Spans of a text, by a label for each word, judged by the F1 of spans",
        output=SEQUENCE,
        primary="f1",
        higher_is_better=True,
        requires=("tokenizers", "seqeval"),
        extra="text",
        tags=("text",),
    )


@hookimpl
def stillhouse_metrics() -> Iterable[MetricSpec]:
    """Metrics beside those of the heads."""
    yield MetricSpec(
        name="ece",
        target="stillhouse.components.metrics:ece",
        summary="Expected calibration error: how far confidence is from accuracy",
        kinds=(MULTICLASS, BINARY),
        higher_is_better=False,
    )
    for name, summary in (
        ("mcc", "Matthews correlation coefficient: 0 for any answer that does not depend on the row"),
        ("f1", "F1 of one class: the harmonic mean of its precision and its recall"),
    ):
        yield MetricSpec(
            name=name,
            target=f"stillhouse.components.metrics:{name}",
            summary=summary,
            kinds=(MULTICLASS, BINARY),
            higher_is_better=True,
        )
