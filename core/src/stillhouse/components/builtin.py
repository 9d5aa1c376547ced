"""The core's own components, registered through the same hooks as those of any plugin."""

from __future__ import annotations

from collections.abc import Iterable

from stillhouse.kinds import OutputKind
from stillhouse.plugins.hookspecs import hookimpl
from stillhouse.plugins.specs import (
    AugmenterSpec,
    DatasetSpec,
    HeadSpec,
    MethodSpec,
    MetricSpec,
    ObjectiveSpec,
    RecipeSpec,
    StudentSpec,
    TeacherSpec,
)

MULTICLASS, BINARY, MULTILABEL = OutputKind.MULTICLASS, OutputKind.BINARY, OutputKind.MULTILABEL
REGRESSION, GAUSSIAN = OutputKind.REGRESSION, OutputKind.GAUSSIAN
SEGMENTATION, SEQUENCE = OutputKind.SEGMENTATION, OutputKind.SEQUENCE
OF_TEXT = (MULTICLASS, BINARY, MULTILABEL, REGRESSION, GAUSSIAN, SEQUENCE)
TEXT_INPUTS = ("tokens", "mask")
PAIR_INPUTS = ("source", "source_mask", "given")
TEXT_PACKAGES = ("transformers", "tokenizers")
"""What the extra ``text`` brings."""

WRITERS = {
    "hf-seq2seq": ("hf_seq2seq", "Sequence-to-sequence model of Hugging Face, pretrained or from a configuration"),
    "hf-causal": ("hf_causal", "Causal language model of Hugging Face, pretrained or from a configuration"),
}
"""Models that write, by name: function and summary."""

FINE_TUNING = {"epochs": 5, "batch_size": 16, "lr": 5e-5, "weight_decay": 0.01, "warmup": 0.1}
"""Training of pretrained encoders, within the ranges of Devlin et al. 2019, "BERT", appendix A.3, with weight decay and
warm-up as there. Models that write take twice the rate."""

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
    module = "stillhouse.objectives.prediction"
    yield ObjectiveSpec(
        name="soft-targets",
        target=f"{module}:SoftTargets",
        summary="KL divergence from the teacher's softened classes, times T squared",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | ONE_LOGIT,
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="bernoulli-kl",
        target=f"{module}:BernoulliKL",
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
        target=f"{module}:TeacherMSE",
        summary="Mean squared difference from the teacher's values",
        kinds=(REGRESSION,),
        incompatible=NOT_VALUES | {GAUSSIAN: "a log-variance is not a value to reach: use gaussian-kl"},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="teacher-bounded",
        target=f"{module}:TeacherBounded",
        summary="Squared error that counts only while the student is not clearly better than the teacher",
        kinds=(REGRESSION,),
        incompatible=NOT_VALUES | {GAUSSIAN: "a log-variance is not a value to reach: use gaussian-kl"},
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="gaussian-kl",
        target=f"{module}:GaussianKL",
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
        target=f"{module}:PixelKL",
        summary="KL divergence from the teacher's softened classes at every pixel",
        kinds=(SEGMENTATION,),
        incompatible=per_place | {SEQUENCE: NOT_CLASSES[SEQUENCE]},
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="channel-kl",
        target=f"{module}:ChannelKL",
        summary="KL divergence from where in the image the teacher sees each class",
        kinds=(SEGMENTATION,),
        incompatible=per_place | {SEQUENCE: NOT_CLASSES[SEQUENCE]},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="token-kl",
        target=f"{module}:TokenKL",
        summary="Forward, reverse or Jensen-Shannon divergence from the teacher at every valid token",
        kinds=(SEQUENCE,),
        incompatible=per_place | {SEGMENTATION: NOT_CLASSES[SEGMENTATION]},
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="dkd",
        target=f"{module}:DKD",
        summary="Decoupled KD: the target class and the other classes weighted apart",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | TWO_CLASSES,
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="dist",
        target=f"{module}:DIST",
        summary="Correlation with the teacher between the classes of a row and between the rows of a class",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | TWO_CLASSES,
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="standardised-logits",
        target=f"{module}:StandardisedLogits",
        summary="Soft targets of logits that are standardised row by row: order and proportions, not the range",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | {BINARY: "two standardised logits are always the same: use bernoulli-kl"},
        extras=("mask",),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="normalised-kd",
        target=f"{module}:NormalisedKD",
        summary="The true class by the teacher's confidence, the others as their own distribution; or labels made anew",
        kinds=(MULTICLASS,),
        incompatible=NOT_CLASSES | TWO_CLASSES,
        extras=("target", "mask"),
        tags=("prediction", "search"),
    )
    yield ObjectiveSpec(
        name="correlation-aware",
        target=f"{module}:CorrelationAware",
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


@hookimpl
def stillhouse_datasets() -> Iterable[DatasetSpec]:
    """Simulated data, and the user's own texts."""
    yield DatasetSpec(
        name="synthetic",
        target="stillhouse.components.datasets:synthetic",
        summary="Simulated rows of numbers with a known rule, for first steps and tests",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        tags=("tabular",),
    )
    yield DatasetSpec(
        name="synthetic-text",
        target="stillhouse.text.datasets:synthetic_text",
        summary="Simulated short reports in three classes, for first steps and tests with texts",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        kinds=(MULTICLASS,),
        reader="stillhouse.text:TextReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text",),
    )
    yield DatasetSpec(
        name="texts",
        target="stillhouse.text.datasets:texts",
        summary="Your own texts from CSV, Parquet or JSON Lines: a text column and a label column",
        licence="yours",
        kinds=(MULTICLASS,),
        reader="stillhouse.text:TextReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text", "own-data"),
    )
    yield DatasetSpec(
        name="synthetic-pairs",
        target="stillhouse.text.datasets:synthetic_pairs",
        summary="Simulated short reports and the orders that follow, for first steps and tests with models that write",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        kinds=(SEQUENCE,),
        reader="stillhouse.text:PairReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text",),
    )
    yield DatasetSpec(
        name="synthetic-spans",
        target="stillhouse.text.datasets:synthetic_spans",
        summary="Simulated short reports whose machines and faults are marked, for first steps and tests with tagging",
        licence="simulated, no rights reserved",
        offline=True,
        simulated=True,
        kinds=(SEQUENCE,),
        reader="stillhouse.text:TagReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text",),
    )
    yield DatasetSpec(
        name="text-pairs",
        target="stillhouse.text.datasets:text_pairs",
        summary="Your own pairs of texts from CSV, Parquet or JSON Lines: one column is read, one is to be written",
        licence="yours",
        kinds=(SEQUENCE,),
        reader="stillhouse.text:PairReader",
        requires=TEXT_PACKAGES,
        extra="text",
        tags=("text", "own-data"),
    )


FLOATS = ("float32", "float64", "float16")


@hookimpl
def stillhouse_augmenters() -> Iterable[AugmenterSpec]:
    """Rows that only the teacher labels."""
    yield AugmenterSpec(
        name="munge",
        target="stillhouse.components.augmenters:munge",
        summary="Training rows, some of their values replaced by ones near a neighbour's (MUNGE)",
        dtypes=FLOATS,
        tags=("tables", "windows"),
    )
    yield AugmenterSpec(
        name="mixup",
        target="stillhouse.components.augmenters:mixup",
        summary="Convex combinations of two training rows",
        dtypes=FLOATS,
        tags=("signals", "images"),
    )
    yield AugmenterSpec(
        name="jitter",
        target="stillhouse.components.augmenters:jitter",
        summary="Training rows with noise, and signals scaled and moved in time",
        dtypes=FLOATS,
        tags=("tables", "signals"),
    )
    yield AugmenterSpec(
        name="mask-replace",
        target="stillhouse.text.augmenters:mask_replace",
        summary="Training texts, some of their tokens masked and some replaced by others",
        inputs=TEXT_INPUTS,
        tags=("text",),
    )
    yield AugmenterSpec(
        name="chat-texts",
        target="stillhouse.chat.writers:ChatTexts",
        summary="Texts that a language model behind HTTP writes: training texts in other words, or of rare classes",
        requires=("httpx",),
        extra="chat",
        inputs=TEXT_INPUTS,
        asked=True,
        tags=("text",),
    )


@hookimpl
def stillhouse_methods() -> Iterable[MethodSpec]:
    """How a student learns."""
    yield MethodSpec(
        name="offline",
        target="stillhouse.methods.offline:Offline",
        summary="One student learns from labels and a frozen teacher in one fit",
        estimators=True,
    )
    yield MethodSpec(
        name="born-again",
        target="stillhouse.methods.born_again:BornAgain",
        summary="Generations of one architecture: each learns from the one before, the first from the teacher",
        taps=False,
    )
    yield MethodSpec(
        name="mutual",
        target="stillhouse.methods.mutual:Mutual",
        summary="Peers learn from labels and from each other, without the teacher; the best one is deployed",
        uses_teacher=False,
        taps=False,
        students=("others",),
    )
    yield MethodSpec(
        name="staged",
        target="stillhouse.methods.staged:Staged",
        summary="Stages on the same weights, each with its own losses: features first, predictions second",
    )
    yield MethodSpec(
        name="assistant",
        target="stillhouse.methods.assistant:Assistant",
        summary="Assistants of intermediate size hand on what the teacher knows, from large to small",
        taps=False,
        students=("assistants",),
    )
    yield MethodSpec(
        name="adversarial",
        target="stillhouse.methods.adversarial:Adversarial",
        summary="The student learns the teacher's answers under the worst small change of its inputs (ARD, RSLAD)",
        taps=False,
        tags=("robust",),
    )
    yield MethodSpec(
        name="adaptive",
        target="stillhouse.methods.adaptive:Adaptive",
        summary="The teacher's share follows the difficulty of each row (AdaKD), or falls in two phases (Annealing KD)",
        taps=False,
        tags=("difficulty", "annealing", "search"),
    )
    yield MethodSpec(
        name="noisy-teachers",
        target="stillhouse.methods.noisy:NoisyTeachers",
        summary="Teachers on overlapping parts of noisy rows; the student learns from those that have not seen a row",
        uses_teacher=False,
        taps=False,
        students=("teacher",),
        tags=("noise",),
    )
    yield MethodSpec(
        name="confident-teachers",
        target="stillhouse.methods.confident:ConfidentTeachers",
        summary="Several teachers, weighted row by row by their loss or their entropy",
        several_teachers=True,
        taps=False,
        tags=("ensemble",),
    )
    yield MethodSpec(
        name="spot-adaptive",
        target="stillhouse.methods.spots:SpotAdaptive",
        summary="A policy network decides row by row at which tapped modules the student is distilled",
        tags=("feature",),
    )
    yield MethodSpec(
        name="condensed",
        target="stillhouse.methods.condensed:Condensed",
        summary="Stages on fewer and fewer rows: those on which the student still differs from the teacher",
        taps=False,
        tags=("compute",),
    )
    yield MethodSpec(
        name="denoised",
        target="stillhouse.methods.denoised:Denoised",
        summary="A small diffusion model of the teacher's features denoises the student's before they are compared",
        tags=("feature",),
    )
    yield MethodSpec(
        name="self-supervised",
        target="stillhouse.methods.self_supervised:SelfSupervised",
        summary="Which rows look alike after a change, as the teacher sees it, is distilled beside its answers (SSKD)",
        changes_inputs=True,
        tags=("augmentation",),
    )
    yield MethodSpec(
        name="missing-modality",
        target="stillhouse.methods.missing:MissingModality",
        summary="The student lacks inputs that the teacher sees, and learns how near each row is to each class",
        kinds=(MULTICLASS, BINARY),
        tags=("modality",),
    )
    yield MethodSpec(
        name="sequence",
        target="stillhouse.methods.sequence:SequenceLevel",
        summary="The teacher writes a text for each training row once, and the student learns to write it",
        kinds=(SEQUENCE,),
        changes_inputs=True,
        tags=("text", "writes"),
    )
    yield MethodSpec(
        name="on-policy",
        target="stillhouse.methods.on_policy:OnPolicy",
        summary="The student writes, and the teacher judges each token of it (GKD)",
        kinds=(SEQUENCE,),
        changes_inputs=True,
        taps=False,
        tags=("text", "writes"),
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


@hookimpl
def stillhouse_recipes() -> Iterable[RecipeSpec]:
    """Recipes on the simulated data."""
    yield RecipeSpec(
        name="quickstart",
        target="stillhouse:recipes/quickstart.yaml",
        summary="A small network distilled from a large one on simulated rows",
        dataset="core/synthetic",
        offline=True,
        minutes=1.0,
    )
