"""Convolutional parts that teachers and students share, and the two shells around them: one for sound, one for
images."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from stillhouse.errors import OptionError


class MeanPool(nn.Module):
    """Mean over both axes: ``[B, C, H, W] -> [B, C]``."""

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        return features.mean(dim=(2, 3))


class MeanMaxPool(nn.Module):
    """Mean over bands, then mean plus maximum over time: ``[B, C, mels, frames] -> [B, C]`` (Kong et al. 2020,
    PANNs)."""

    def forward(self, features: Tensor) -> Tensor:
        """See the class."""
        over_bands = features.mean(dim=2)
        return over_bands.mean(dim=2) + over_bands.amax(dim=2)


class Network(nn.Module):
    """Front end, feature maps, pooled embedding, prediction. Modules to tap: ``features`` ``[B, C, H, W]`` and ``pool``
    ``[B, C]``.

    Args:
        front: from the input to ``[B, C, H, W]``.
        features: from there to ``[B, width, h, w]``.
        pool: from there to ``[B, width]``.
        width: channels of the last map.
        outputs: width of the prediction.
        dropout: share of the embedding dropped while training.
    """

    def __init__(
        self, front: nn.Module, features: nn.Module, pool: nn.Module, width: int, outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.front, self.features, self.pool = front, features, pool
        self.dropout, self.output = nn.Dropout(dropout), nn.Linear(width, outputs)

    def logits(self, value: Tensor) -> Tensor:
        """Prediction ``[B, outputs]``."""
        return self.output(self.dropout(self.pool(self.features(self.front(value)))))


class AudioNetwork(Network):
    """A `Network` that takes ``waveform`` ``[B, T]`` or, where the dataset caches it, ``spectrogram``
    ``[B, mels, frames]``."""

    def forward(self, waveform: Tensor | None = None, spectrogram: Tensor | None = None) -> Tensor:
        """See the class."""
        return self.logits(given(waveform, spectrogram))


class ImageNetwork(Network):
    """A `Network` that takes ``image`` ``[B, C, H, W]`` in [0, 1]."""

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.logits(image)


def given(waveform: Tensor | None, spectrogram: Tensor | None) -> Tensor:
    """The one that is there.

    Raises:
        ValueError: neither is.
    """
    value = waveform if spectrogram is None else spectrogram
    if value is None:
        raise ValueError("give 'waveform' or 'spectrogram'")
    return value


def conv_blocks(channels: int, widths: list[int]) -> nn.Sequential:
    """Blocks of two 3x3 convolutions with batch norm and ReLU, halving both axes between blocks (Kong et al. 2020)."""
    layers: list[nn.Module] = []
    for number, width in enumerate(widths):
        if number:
            layers.append(nn.AvgPool2d(2, ceil_mode=True))
        layers += [Conv2dNormActivation(channels, width), Conv2dNormActivation(width, width)]
        channels = width
    return nn.Sequential(*layers)


def wave_blocks(width: int) -> tuple[nn.Sequential, int]:
    """Convolutions over the samples of ``[B, 1, 1, T]``: one of 80 samples in steps of 4, then three of 3, with max
    pooling by 4 between them; the last two double the channels (M5 of Dai et al. 2017).

    Returns:
        the layers, and the channels of their output.
    """
    layers: list[nn.Module] = [Conv2dNormActivation(1, width, kernel_size=(1, 80), stride=(1, 4), padding=(0, 40))]
    before = width
    for after in (width, 2 * width, 4 * width):
        layers += [
            nn.MaxPool2d((1, 4), ceil_mode=True),
            Conv2dNormActivation(before, after, kernel_size=(1, 3), padding=(0, 1)),
        ]
        before = after
    return nn.Sequential(*layers), before


MOBILE_BLOCKS = ((48, 1), (64, 2), (96, 1), (128, 2))
"""Channels at width 1 and stride of each depthwise-separable block; few and wide, since on a CPU a layer costs time
however small it is."""


def mobile_blocks(channels: int, width: float, *, stem_stride: int) -> tuple[nn.Sequential, int]:
    """A small MobileNet (Howard et al. 2017): a 3x3 stem, then blocks of a depthwise 3x3 and a 1x1 convolution.

    Args:
        channels: of the input.
        width: multiplier of all channel counts.
        stem_stride: stride of the stem; 2 for spectrograms and larger images.

    Returns:
        the layers, and the channels of their output.
    """
    before = scale(32, width)
    layers: list[nn.Module] = [Conv2dNormActivation(channels, before, stride=stem_stride)]
    for size, stride in MOBILE_BLOCKS:
        after = scale(size, width)
        layers += [
            Conv2dNormActivation(before, before, stride=stride, groups=before),
            Conv2dNormActivation(before, after, kernel_size=1),
        ]
        before = after
    return nn.Sequential(*layers), before


def scale(size: int, width: float) -> int:
    """``size`` channels times ``width``, a multiple of 4 and at least 4."""
    return max(4, 4 * round(size * width / 4))


def in_bounds(name: str, value: float, low: float, high: float, *, model: str) -> None:
    """Refuse an option outside [low, high].

    Raises:
        OptionError: with the range.
    """
    if not low <= value <= high:
        raise OptionError(f"{name} is {value}", where=f"model '{model}'", fix=f"a number from {low:g} to {high:g}")
