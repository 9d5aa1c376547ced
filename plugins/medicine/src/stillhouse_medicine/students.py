"""Students: small networks for the bedside, and a control that never sees the image."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.ranges import Range
from stillhouse.types import Estimator, Task
from stillhouse_medicine.classifiers import ImageClassifier
from stillhouse_medicine.encoders.frozen import Frozen
from stillhouse_medicine.encoders.images import SCRATCH, has_weights
from stillhouse_medicine.encoders.images import image_encoder as make_image_encoder
from stillhouse_medicine.encoders.questions import word_vectors as pretrained_word_vectors
from stillhouse_medicine.film import Components, Learnt, Modulate
from stillhouse_medicine.layers import Centre, Conv, Separable, WordEncoder
from stillhouse_medicine.text import PAD
from stillhouse_medicine.unet import UNet


def small_body(channels: int, width: int, stages: int) -> nn.Sequential:
    """A 3x3 convolution of stride 2, then ``stages`` separable ones that halve the sides and double the width."""
    layers: list[nn.Module] = [Centre(), Conv(channels, width, 2)]
    layers += [Separable(width * 2**stage, width * 2 ** (stage + 1), 2) for stage in range(stages)]
    return nn.Sequential(*layers)


class VQASmall(nn.Module):
    """A small CNN and word convolutions, multiplied and mixed; see `vqa_small`.

    Modules to tap: ``image_features``, ``question_features`` and ``fused``, each ``[B, width]``.
    """

    def __init__(self, task: Task, *, channels: int, words: int, width: int, dropout: float) -> None:
        super().__init__()
        shape = task.inputs["image"].shape
        self.image = small_body(shape[0], channels, 3)
        # Images above 64 pixels are pooled to about 4 x 4 places, so that the projection stays small.
        pool = max(1, min(shape[1:]) // 64)
        if pool > 1:
            self.image.append(nn.AvgPool2d(pool))
        with torch.no_grad():
            self.image.eval()
            places = self.image(torch.zeros(1, *shape)).flatten(1).shape[1]
            self.image.train()
        # Flattened, not averaged: where something is, left or right, is half of the answers.
        self.project_image = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(places, width))
        self.image_features = nn.LayerNorm(width)
        self.text = WordEncoder(_words(task), words, dropout)
        self.project_text = nn.Linear(2 * words, width)
        self.question_features = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Dropout(dropout), nn.Linear(3 * width, width), nn.ReLU())
        self.fused = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        """Logits ``[B, A + 1]`` for images ``[B, C, H, W]`` and word numbers ``[B, L]``."""
        seen = self.image_features(self.project_image(self.image(image)))
        asked = self.question_features(self.project_text(self.text(question)))
        return self.output(self.dropout(self.fused(self.mix(torch.cat([seen, asked, seen * asked], dim=1)))))


class VQASmallFiLM(nn.Module):
    """Words whose features a few numbers of the image scale and shift; see `vqa_small_film`.

    Modules to tap: ``image_features`` (``[B, components]``), ``question_features`` and ``fused`` (``[B, width]``).
    """

    def __init__(
        self, task: Task, image: nn.Module, *, frozen: bool, words: int, width: int, components: int, dropout: float
    ) -> None:
        super().__init__()
        self.image = Frozen(image) if frozen else image
        self.image_features = (Components if frozen else Learnt)(int(image.width), components)
        self.text = WordEncoder(_words(task), words, dropout)
        self.question_features = nn.Sequential(nn.Linear(2 * words, width), nn.ReLU(), nn.LayerNorm(width))
        self.fused = Modulate(components, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, task.outputs)

    def forward(self, image: Tensor, question: Tensor) -> Tensor:
        """Logits ``[B, A + 1]`` for images ``[B, C, H, W]`` and word numbers ``[B, L]``."""
        seen = self.image_features(self.image(image))
        return self.output(self.dropout(self.fused(self.question_features(self.text(question)), seen)))


class _SmallImage(nn.Module):
    """The image part of `VQASmallFiLM` from scratch: ``[B, C, H, W] -> [B, P, width]``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = small_body(channels, width, 3)
        self.width = 8 * width

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.body(image).flatten(2).transpose(1, 2)


class QuestionOnly(nn.Module):
    """Word convolutions and a classifier over the answers; see `question_only`."""

    def __init__(self, task: Task, *, words: int, width: int, dropout: float) -> None:
        super().__init__()
        self.text = WordEncoder(_words(task), words, dropout)
        self.mix = nn.Sequential(nn.Linear(2 * words, width), nn.ReLU(), nn.LayerNorm(width), nn.Dropout(dropout))
        self.output = nn.Linear(width, task.outputs)

    def forward(self, question: Tensor) -> Tensor:
        """Logits ``[B, A + 1]`` for word numbers ``[B, L]``."""
        return self.output(self.mix(self.text(question)))


def _words(task: Task) -> int:
    if "words" not in task.info.meta:
        raise IncompatibleError("the dataset has no questions", where="student", fix="choose a VQA dataset")
    return int(task.info.meta["words"])


def vqa_small(
    task: Task,
    *,
    channels: int = 12,
    words: int = 48,
    width: Annotated[int, Range(16, 192, log=True, size=True)] = 96,
    dropout: float = 0.2,
) -> nn.Module:
    """A small VQA model: separable convolutions on the image, word vectors and their convolutions, a mix of both.

    Args:
        task: inputs and answers.
        channels: of the first convolution; doubled by each of the three that follow.
        words: width of the word vectors.
        width: features of image, question and both.
        dropout: share of activations dropped while training.
    """
    return VQASmall(task, channels=channels, words=words, width=width, dropout=dropout)


def vqa_small_film(
    task: Task,
    *,
    image_encoder: str = SCRATCH,
    image_weights: str | None = None,
    image_size: int | None = None,
    channels: int = 12,
    words: int = 48,
    word_vectors: str | None = None,
    width: int = 96,
    components: int = 3,
    dropout: float = 0.3,
) -> nn.Module:
    """A small VQA model for data sets of a few hundred images: a few numbers say what an image shows, and scale and
    shift the features of the question (FiLM, Perez et al. 2018), which come from word vectors.

    Args:
        task: inputs and answers.
        image_encoder: "scratch" (separable convolutions), or a pre-trained encoder that stays frozen, named as in
            `medicine/vqa-film`; the numbers are then principal components of what it says.
        image_weights: for torchvision: a file of weights, or "DEFAULT" to download torchvision's own.
        image_size: side that images are resized to for a pre-trained encoder; by default the dataset's.
        channels: of the first convolution of "scratch"; doubled by each of the three that follow.
        words: width of the word vectors.
        word_vectors: folder, hub id or "package:folder" of a text encoder from which the word vectors start. It is
            not needed any more once the student is trained.
        width: features of the question.
        components: numbers that say what an image shows; as many as the teacher's, so that a hint can teach them.
        dropout: share of activations dropped while training.

    Raises:
        OptionError: there are no components, or the encoder does not exist.
        DataError: pre-trained weights cannot be had.
        IncompatibleError: the dataset has no questions.
    """
    if components < 1:
        raise OptionError(f"components is {components}", where="student.components", fix="at least 1")
    spec = task.inputs["image"]
    image = (
        _SmallImage(spec.shape[0], channels)
        if image_encoder == SCRATCH
        else make_image_encoder(image_encoder, spec, width=channels, blocks=1, weights=image_weights, size=image_size)
    )
    frozen = has_weights(image_encoder, image_weights)
    model = VQASmallFiLM(task, image, frozen=frozen, words=words, width=width, components=components, dropout=dropout)
    if word_vectors is not None and task.pretrained:
        model.text.start_from(pretrained_word_vectors(word_vectors, task.info.meta["vocabulary"], words))
    return model


def question_only(task: Task, *, words: int = 48, width: int = 96, dropout: float = 0.2) -> nn.Module:
    """A control that answers from the question alone: what a VQA model gains over it comes from the image.

    Args:
        task: inputs and answers.
        words: width of the word vectors.
        width: features of the question.
        dropout: share of activations dropped while training.
    """
    return QuestionOnly(task, words=words, width=width, dropout=dropout)


def cnn(
    task: Task, *, width: Annotated[int, Range(4, 48, log=True, size=True)] = 12, stages: int = 2, dropout: float = 0.0
) -> nn.Module:
    """A small CNN of separable convolutions: a few thousand parameters.

    Args:
        task: inputs and width of the prediction.
        width: channels of the first convolution; doubled by each stage.
        stages: separable convolutions of stride 2 after the first.
        dropout: share of the pooled features dropped while training.
    """
    body = small_body(task.inputs["image"].shape[0], width, stages)
    return ImageClassifier(task, body, width * 2**stages, dropout)


def unet(
    task: Task, *, width: Annotated[int, Range(2, 32, log=True, size=True)] = 8, depth: int = 2, separable: bool = True
) -> nn.Module:
    """A small U-Net of separable convolutions.

    Args:
        task: inputs and number of classes.
        width: channels at full resolution; doubled at each lower one.
        depth: how often the resolution is halved; the image's sides must allow it.
        separable: depthwise separable convolutions; without, about eight times the parameters.
    """
    return UNet(task, width=width, depth=depth, separable=separable)


def tfidf_logistic(task: Task, *, C: float = 10.0, ngrams: int = 2, max_iter: int = 1000) -> Estimator:
    """Logistic regression on the TF-IDF of a question's words and their sequences (scikit-learn): what the words alone
    tell. Nothing of it is random, so that all seeds give the same figures.

    Args:
        task: what the framework gives.
        C: inverse of the strength of the L2 penalty.
        ngrams: longest sequence of words that is counted.
        max_iter: most iterations of the solver.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pipeline: Estimator = make_pipeline(
        FunctionTransformer(as_texts),
        TfidfVectorizer(
            ngram_range=(1, ngrams), sublinear_tf=True, token_pattern=r"\S+", lowercase=False, dtype=np.float32
        ),
        LogisticRegression(C=C, max_iter=max_iter),
    )
    return pipeline


def as_texts(numbers: np.ndarray) -> list[str]:
    """Word numbers ``[N, L]`` as one text a row, padding left out: what a text vectorizer of scikit-learn takes."""
    return [" ".join(str(number) for number in row if number != PAD) for row in numbers.tolist()]
