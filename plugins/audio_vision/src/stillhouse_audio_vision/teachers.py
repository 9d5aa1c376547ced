"""Teachers: a spectrogram transformer and a CNN for sound, a vision transformer and a ResNet for images."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet as torchvision_resnet

from stillhouse.errors import IncompatibleError, MissingDependencyError, OptionError
from stillhouse.types import Task
from stillhouse_audio_vision.frontend import UnitPower, audio_front, frames, image_front
from stillhouse_audio_vision.networks import (
    AudioNetwork,
    ImageNetwork,
    MeanMaxPool,
    MeanPool,
    conv_blocks,
    given,
    in_bounds,
    wave_blocks,
)

AST_RATE, AST_FRAMES_HOP_MS = 16000, 10.0
AST_MEAN, AST_STD = -4.2677393, 4.5689974
"""Mean and standard deviation of AudioSet's filter banks, with which published AST weights were trained."""


class SpectrogramTransformer(nn.Module):
    """Audio spectrogram transformer on the dataset's log-mel spectrogram; see `ast`."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.front, self.model = audio_front(task.info), model

    def forward(self, waveform: Tensor | None = None, spectrogram: Tensor | None = None) -> Tensor:
        """Logits ``[B, outputs]`` of ``waveform`` ``[B, T]`` or ``spectrogram`` ``[B, mels, frames]``."""
        picture = self.front(given(waveform, spectrogram)).squeeze(1)
        return self.model(input_values=picture.transpose(1, 2)).logits


class PretrainedSpectrogramTransformer(nn.Module):
    """A published AST, fed as it was trained: 16 kHz, Kaldi filter banks, padded or cut to its length; see `ast`."""

    def __init__(self, task: Task, model: Any) -> None:
        super().__init__()
        self.rate = task.info.meta["log_mel"]["rate"]
        self.mels, self.length, self.model = model.config.num_mel_bins, model.config.max_length, model

    def forward(self, waveform: Tensor) -> Tensor:
        """Logits ``[B, outputs]`` of ``waveform`` ``[B, T]``."""
        sound = torchaudio.functional.resample(waveform, self.rate, AST_RATE)
        banks = [
            torchaudio.compliance.kaldi.fbank(
                row[None],
                htk_compat=True,
                sample_frequency=AST_RATE,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=self.mels,
                frame_shift=AST_FRAMES_HOP_MS,
            )
            for row in sound
        ]
        values = torch.stack(banks)[:, : self.length]
        values = functional.pad(values, (0, 0, 0, self.length - values.shape[1]))
        return self.model(input_values=(values - AST_MEAN) / (2 * AST_STD)).logits


class VisionTransformer(nn.Module):
    """A Hugging Face ViT on images of any size, which are resized to the size that it takes; see `vit`."""

    def __init__(self, front: nn.Module, model: Any) -> None:
        super().__init__()
        self.front, self.model = front, model
        self.size, self.channels = model.config.image_size, model.config.num_channels

    def forward(self, image: Tensor) -> Tensor:
        """Logits ``[B, outputs]`` of ``image`` ``[B, C, H, W]`` in [0, 1]."""
        pixels = self.front(image)
        if pixels.shape[1] != self.channels:
            pixels = pixels.mean(dim=1, keepdim=True).expand(-1, self.channels, -1, -1)
        if pixels.shape[-2:] != (self.size, self.size):
            pixels = functional.interpolate(
                pixels, size=(self.size, self.size), mode="bilinear", align_corners=False, antialias=True
            )
        return self.model(pixel_values=pixels).logits


class Half(nn.Module):
    """[0, 1] to [-1, 1], as published ViT weights expect."""

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return (image - 0.5) / 0.5


def cnn(task: Task, *, width: int = 32, blocks: int = 4, dropout: float = 0.2, cepstrum: int = 0) -> nn.Module:
    """A CNN on the log-mel spectrogram after PANNs (Kong et al. 2020): about 1.2 million parameters by default.

    Args:
        task: inputs and width of the prediction.
        width: channels of the first block; each further block doubles them.
        blocks: blocks of two 3x3 convolutions.
        dropout: share of the embedding dropped while training.
        cepstrum: mel-frequency cepstral coefficients (MFCC) to look at in place of the spectrogram, 13 or so; 0 for the
            spectrogram.

    Raises:
        OptionError: an option is out of range.
        IncompatibleError: the dataset has no sound.
    """
    in_bounds("width", width, 1, 512, model="cnn")
    in_bounds("blocks", blocks, 1, 6, model="cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="cnn")
    audio_front(task.info)  # refuses a dataset without sound
    in_bounds("cepstrum", cepstrum, 0, frames(task.info)[0], model="cnn")
    widths = [width * 2**number for number in range(blocks)]
    front = audio_front(task.info, cepstrum=cepstrum)
    return AudioNetwork(front, conv_blocks(1, widths), MeanMaxPool(), widths[-1], task.outputs, dropout)


def wave_cnn(task: Task, *, width: int = 64, dropout: float = 0.2) -> nn.Module:
    """A CNN on the samples of the waveform (M5 of Dai et al. 2017): about 150,000 parameters by default. It errs on
    other rows than a CNN on spectrograms, which makes it a member of several teachers rather than a teacher alone.

    Args:
        task: inputs and width of the prediction.
        width: channels of the first convolution.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: an option is out of range.
        IncompatibleError: the dataset gives no waveforms.
    """
    in_bounds("width", width, 1, 512, model="wave-cnn")
    in_bounds("dropout", dropout, 0.0, 0.95, model="wave-cnn")
    if "waveform" not in task.inputs:
        raise IncompatibleError(
            f"the model takes waveforms, the dataset gives {sorted(task.inputs)}",
            where="model 'wave-cnn'",
            fix="set the dataset's input: waveform",
        )
    features, last = wave_blocks(width)
    return AudioNetwork(UnitPower(), features, MeanMaxPool(), last, task.outputs, dropout)


def ast(
    task: Task,
    *,
    pretrained: str | None = None,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    patch: int = 8,
    stride: int | None = None,
    dropout: float = 0.1,
) -> nn.Module:
    """An audio spectrogram transformer (Gong et al. 2021), Hugging Face's ``ASTForAudioClassification``.

    From scratch it takes patches of the dataset's own spectrogram; a pre-trained one computes its own filter banks at
    16 kHz and needs the dataset's input ``waveform``.

    Args:
        task: inputs and width of the prediction.
        pretrained: folder or hub id of weights to start from; the other options are then its own.
        width: features of a token, a multiple of ``heads``.
        layers: encoder layers.
        heads: attention heads.
        patch: side of a patch, in bands and frames.
        stride: step between patches; by default the side, so that they do not overlap.
        dropout: share of activations dropped while training.

    Raises:
        OptionError: an option is out of range, or the weights cannot be loaded.
        IncompatibleError: the dataset has no sound.
    """
    from transformers import ASTConfig, ASTForAudioClassification

    audio_front(task.info)
    if pretrained is not None:
        if "waveform" not in task.inputs:
            raise OptionError(
                "a pre-trained AST takes waveforms, the dataset gives spectrograms",
                where="model 'ast'",
                fix="set the dataset's input: waveform",
            )
        return PretrainedSpectrogramTransformer(task, from_pretrained(ASTForAudioClassification, pretrained, task))
    mels, count = frames(task.info)
    in_bounds("patch", patch, 1, min(mels, count), model="ast")
    _check_width(width, heads, "ast")
    config = ASTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        patch_size=patch,
        frequency_stride=stride or patch,
        time_stride=stride or patch,
        max_length=count,
        num_mel_bins=mels,
        num_labels=task.outputs,
    )
    return SpectrogramTransformer(task, ASTForAudioClassification(config))


def vit(
    task: Task,
    *,
    pretrained: str | None = None,
    width: int = 128,
    layers: int = 6,
    heads: int = 4,
    patch: int = 4,
    dropout: float = 0.1,
) -> nn.Module:
    """A vision transformer (Dosovitskiy et al. 2021), Hugging Face's ``ViTForImageClassification``.

    Args:
        task: inputs and width of the prediction.
        pretrained: folder or hub id of weights to start from; the other options are then its own, and images are
            resized to its size.
        width: features of a token, a multiple of ``heads``.
        layers: encoder layers.
        heads: attention heads.
        patch: side of a patch in pixels.
        dropout: share of activations dropped while training.

    Raises:
        OptionError: an option is out of range, or the weights cannot be loaded.
        IncompatibleError: the dataset has no images.
    """
    from transformers import ViTConfig, ViTForImageClassification

    front = image_front(task.info)
    if pretrained is not None:
        return VisionTransformer(Half(), from_pretrained(ViTForImageClassification, pretrained, task))
    channels, height, wide = task.inputs["image"].shape
    size = patch * -(-max(height, wide) // patch)
    _check_width(width, heads, "vit")
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        image_size=size,
        patch_size=patch,
        num_channels=channels,
        num_labels=task.outputs,
    )
    return VisionTransformer(front, ViTForImageClassification(config))


DEPTHS: dict[int, tuple[type[Any], list[int]]] = {
    10: (torchvision_resnet.BasicBlock, [1, 1, 1, 1]),
    18: (torchvision_resnet.BasicBlock, [2, 2, 2, 2]),
    34: (torchvision_resnet.BasicBlock, [3, 4, 6, 3]),
    50: (torchvision_resnet.Bottleneck, [3, 4, 6, 3]),
}


def resnet(task: Task, *, depth: Literal[10, 18, 34, 50] = 18, dropout: float = 0.0) -> nn.Module:
    """A ResNet (He et al. 2016) of torchvision's blocks; for images below 64 pixels the stem is one 3x3 convolution of
    stride 1, as usual on CIFAR.

    Args:
        task: inputs and width of the prediction.
        depth: layers; 18 has 11 million parameters, 10 has 5 million.
        dropout: share of the embedding dropped while training.

    Raises:
        OptionError: dropout is out of range.
        IncompatibleError: the dataset has no images.
    """
    in_bounds("dropout", dropout, 0.0, 0.95, model="resnet")
    front = image_front(task.info)
    channels, height, _ = task.inputs["image"].shape
    block, layers = DEPTHS[depth]
    net = torchvision_resnet.ResNet(block, layers, num_classes=task.outputs)
    small = height < 64
    kernel, stride = (3, 1) if small else (7, 2)
    net.conv1 = nn.Conv2d(channels, 64, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    stem = [net.conv1, net.bn1, net.relu, *([] if small else [net.maxpool])]
    features = nn.Sequential(*stem, net.layer1, net.layer2, net.layer3, net.layer4)
    return ImageNetwork(front, features, MeanPool(), 512 * block.expansion, task.outputs, dropout)


def from_pretrained(model: Any, source: str, task: Task) -> nn.Module:
    """Weights of a Hugging Face model from a folder or the hub, with a new output layer of the task's width.

    Raises:
        OptionError: they cannot be loaded.
        MissingDependencyError: transformers needs a package that is not installed.
    """
    try:
        return model.from_pretrained(source, num_labels=task.outputs, ignore_mismatched_sizes=True)
    except ImportError as error:
        raise MissingDependencyError(str(error), where=f"pretrained: {source}") from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise OptionError(
            f"the weights '{source}' cannot be loaded: {reason}",
            where="option 'pretrained'",
            fix="give a folder with config.json and model.safetensors, or a hub id that this machine can reach",
        ) from error


def _check_width(width: int, heads: int, model: str) -> None:
    if heads < 1 or width < 1 or width % heads:
        raise OptionError(
            f"width {width} is not a multiple of {heads} heads", where=f"model '{model}'", fix="e.g. width 128, heads 4"
        )
