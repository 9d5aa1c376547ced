"""Students for sound and images: small MobileNets and a plain CNN, from a few thousand parameters upwards."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from stillhouse.ranges import Range
from stillhouse.types import Task
from stillhouse_audio_vision.frontend import audio_front, image_front
from stillhouse_audio_vision.networks import AudioNetwork, ImageNetwork, MeanPool, conv_blocks, in_bounds, mobile_blocks


def mobile_cnn(
    task: Task, *, width: Annotated[float, Range(0.125, 1.0, log=True, size=True)] = 0.5, dropout: float = 0.0
) -> nn.Module:
    """A small MobileNet on the log-mel spectrogram, which it computes itself: about 8,000 parameters at width 0.5,
    28,000 at 1, 100,000 at 2.

    Args:
        task: inputs and width of the prediction.
        width: multiplier of all channel counts.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: width or dropout is out of range.
        IncompatibleError: the dataset has no sound.
    """
    in_bounds("width", width, 0.1, 4.0, model="mobile-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="mobile-cnn")
    features, last = mobile_blocks(1, width, stem_stride=2)
    return AudioNetwork(audio_front(task.info), features, MeanPool(), last, task.outputs, dropout)


def image_mobile_cnn(
    task: Task, *, width: Annotated[float, Range(0.125, 1.0, log=True, size=True)] = 0.5, dropout: float = 0.0
) -> nn.Module:
    """A small MobileNet on images; the stem keeps the size of images below 64 pixels.

    Args:
        task: inputs and width of the prediction.
        width: multiplier of all channel counts.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: width or dropout is out of range.
        IncompatibleError: the dataset has no images.
    """
    in_bounds("width", width, 0.1, 4.0, model="image-mobile-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="image-mobile-cnn")
    front = image_front(task.info)
    channels, height, _ = task.inputs["image"].shape
    features, last = mobile_blocks(channels, width, stem_stride=1 if height < 64 else 2)
    return ImageNetwork(front, features, MeanPool(), last, task.outputs, dropout)


def image_cnn(
    task: Task, *, width: Annotated[int, Range(4, 32, log=True, size=True)] = 8, blocks: int = 2, dropout: float = 0.0
) -> nn.Module:
    """A plain CNN on images: blocks of two 3x3 convolutions, doubling the channels and halving the size.

    Args:
        task: inputs and width of the prediction.
        width: channels of the first block.
        blocks: number of blocks.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: an option is out of range.
        IncompatibleError: the dataset has no images.
    """
    in_bounds("width", width, 1, 1024, model="image-cnn")
    in_bounds("blocks", blocks, 1, 6, model="image-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="image-cnn")
    front = image_front(task.info)
    widths = [width * 2**number for number in range(blocks)]
    features = conv_blocks(task.inputs["image"].shape[0], widths)
    return ImageNetwork(front, features, MeanPool(), widths[-1], task.outputs, dropout)
