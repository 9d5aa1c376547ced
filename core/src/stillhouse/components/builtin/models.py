"""The core's teachers and students."""

from __future__ import annotations

from collections.abc import Iterable

from stillhouse.components.builtin.kinds import (
    BINARY,
    MULTICLASS,
    MULTILABEL,
    OF_TEXT,
    PAIR_INPUTS,
    REGRESSION,
    SEQUENCE,
    TEXT_INPUTS,
    TEXT_PACKAGES,
)
from stillhouse.plugins.hookspecs import hookimpl
from stillhouse.plugins.specs import StudentSpec, TeacherSpec

WRITERS = {
    "hf-seq2seq": ("hf_seq2seq", "Sequence-to-sequence model of Hugging Face, pretrained or from a configuration"),
    "hf-causal": ("hf_causal", "Causal language model of Hugging Face, pretrained or from a configuration"),
}
"""Models that write, by name: function and summary."""

FINE_TUNING = {"epochs": 5, "batch_size": 16, "lr": 5e-5, "weight_decay": 0.01, "warmup": 0.1}
"""Training of pretrained encoders, within the ranges of Devlin et al. 2019, "BERT", appendix A.3, with weight decay and
warm-up as there. Models that write take twice the rate."""


@hookimpl
def stillhouse_teachers() -> Iterable[TeacherSpec]:
    """Generic teachers for tabular inputs."""
    yield TeacherSpec(
        name="mlp", target="stillhouse.components.models:mlp", summary="Multi-layer perceptron over all inputs"
    )
    yield TeacherSpec(
        name="random-forest",
        target="stillhouse.components.trees:random_forest",
        summary="Random forest of scikit-learn",
        kinds=(MULTICLASS, BINARY, MULTILABEL, REGRESSION),
        tags=("estimator",),
    )
    yield TeacherSpec(
        name="hist-gradient-boosting",
        target="stillhouse.components.trees:hist_gradient_boosting",
        summary="Histogram gradient boosting of scikit-learn",
        kinds=(MULTICLASS, BINARY, REGRESSION),
        tags=("estimator",),
    )
    yield TeacherSpec(
        name="hf-encoder",
        target="stillhouse.text.encoders:hf_encoder",
        summary="Encoder of Hugging Face, pretrained or from a configuration",
        inputs=TEXT_INPUTS,
        kinds=OF_TEXT,
        requires=TEXT_PACKAGES,
        extra="text",
        fine_tuning=FINE_TUNING,
        tags=("text",),
    )
    for name, (target, summary) in WRITERS.items():
        yield TeacherSpec(
            name=name,
            target=f"stillhouse.text.generators:{target}",
            summary=summary,
            inputs=PAIR_INPUTS,
            kinds=(SEQUENCE,),
            requires=TEXT_PACKAGES,
            extra="text",
            fine_tuning={**FINE_TUNING, "lr": 1e-4},
            tags=("text", "writes"),
        )
    yield TeacherSpec(
        name="chat",
        target="stillhouse.chat.teacher:ChatTeacher",
        summary="A language model behind HTTP (any OpenAI-compatible server), asked for the class of each row",
        kinds=(MULTICLASS, BINARY),
        asked=True,
        requires=("httpx",),
        extra="chat",
    )


@hookimpl
def stillhouse_students() -> Iterable[StudentSpec]:
    """Generic students for tabular inputs."""
    yield StudentSpec(
        name="mlp", target="stillhouse.components.models:mlp", summary="Multi-layer perceptron over all inputs"
    )
    yield StudentSpec(
        name="linear", target="stillhouse.components.models:linear", summary="One linear layer over all inputs"
    )
    yield StudentSpec(
        name="pca-linear",
        target="stillhouse.components.references:pca_linear",
        summary="Control: principal components of all inputs, then logistic or ridge regression (scikit-learn)",
        kinds=(MULTICLASS, BINARY, REGRESSION),
        tags=("estimator", "control"),
    )
    yield StudentSpec(
        name="decision-tree",
        target="stillhouse.components.trees:decision_tree",
        summary="Decision tree of scikit-learn, which can be read and printed",
        kinds=(MULTICLASS, BINARY, MULTILABEL, REGRESSION),
        tags=("estimator", "interpretable"),
    )
    yield from _text_students()


def _text_students() -> Iterable[StudentSpec]:
    for name, target, summary in (
        ("hf-encoder", "encoders:hf_encoder", "Encoder of Hugging Face, pretrained or from a configuration"),
        ("hf-layers", "encoders:hf_layers", "Every k-th layer and the embeddings of a pretrained encoder (DistilBERT)"),
    ):
        yield StudentSpec(
            name=name,
            target=f"stillhouse.text.{target}",
            summary=summary,
            inputs=TEXT_INPUTS,
            kinds=OF_TEXT,
            requires=TEXT_PACKAGES,
            extra="text",
            fine_tuning=FINE_TUNING,
            tags=("text",),
        )
    for name, (target, summary) in WRITERS.items():
        yield StudentSpec(
            name=name,
            target=f"stillhouse.text.generators:{target}",
            summary=summary,
            inputs=PAIR_INPUTS,
            kinds=(SEQUENCE,),
            requires=TEXT_PACKAGES,
            extra="text",
            fine_tuning={**FINE_TUNING, "lr": 1e-4},
            tags=("text", "writes"),
        )
    yield StudentSpec(
        name="text-encoder",
        target="stillhouse.text.students:text_encoder",
        summary="Small transformer with a vocabulary of its own and factorised embeddings",
        inputs=TEXT_INPUTS,
        kinds=OF_TEXT,
        requires=("tokenizers",),
        extra="text",
        tags=("text",),
    )
    yield StudentSpec(
        name="tfidf-logistic",
        target="stillhouse.text.tfidf:tfidf_logistic",
        summary="Logistic regression on TF-IDF of tokens and pairs of tokens: the reference for texts",
        inputs=TEXT_INPUTS,
        kinds=(MULTICLASS, BINARY),
        features="stillhouse.text.tfidf:token_words",
        requires=("tokenizers",),
        extra="text",
        tags=("text", "estimator"),
    )
