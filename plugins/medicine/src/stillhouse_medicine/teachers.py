"""Teachers: co-attention over image and question, residual networks, a U-Net."""

from __future__ import annotations

import torch
from torch import nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.types import Task
from stillhouse_medicine.classifiers import ImageClassifier, TorchvisionClassifier
from stillhouse_medicine.coattention import VQACoAttention
from stillhouse_medicine.encoders.images import TorchvisionImage, torchvision_body
from stillhouse_medicine.encoders.images import image_encoder as make_image_encoder
from stillhouse_medicine.encoders.questions import HuggingFaceText, ScratchText
from stillhouse_medicine.film import VQAFiLM
from stillhouse_medicine.layers import residual_stages
from stillhouse_medicine.unet import UNet


def vqa_coattention(
    task: Task,
    *,
    image_encoder: str = "scratch",
    image_weights: str | None = None,
    image_size: int | None = None,
    image_width: int = 24,
    image_blocks: int = 1,
    text_encoder: str = "scratch",
    text_layers: int = 2,
    width: int = 128,
    attention_heads: int = 4,
    layers: int = 2,
    dropout: float = 0.3,
    freeze: bool = True,
) -> nn.Module:
    """A VQA teacher: image encoder and question encoder, whose vectors attend to each other, then a classifier over
    the answers.

    Args:
        task: inputs and answers.
        image_encoder: "scratch" (residual network), "torchvision:resnet18" (any torchvision classifier with a
            convolutional part), "efficientnet-lite0" (two small packages bring ImageNet weights), or the folder or
            hub id of a Hugging Face vision model.
        image_weights: for torchvision: a file of weights, or "DEFAULT" to download torchvision's own.
        image_size: side that images are resized to for the image encoder; by default the dataset's.
        image_width: channels of the first stage of "scratch".
        image_blocks: residual blocks of each stage of "scratch".
        text_encoder: "scratch" (small BERT over the dataset's words), or the folder, hub id or "package:folder" of a
            Hugging Face text encoder; the dataset then needs the same name as its tokenizer.
        text_layers: layers of "scratch".
        width: features of a position or word after projection.
        attention_heads: heads of each attention.
        layers: co-attention layers.
        dropout: share of activations dropped while training.
        freeze: pre-trained encoders stay as they are.

    Raises:
        IncompatibleError: the dataset gives no tokens for the text encoder.
    """
    meta = task.info.meta
    image = make_image_encoder(
        image_encoder,
        task.inputs["image"],
        width=image_width,
        blocks=image_blocks,
        weights=image_weights,
        size=image_size,
    )
    pretrained_text = text_encoder != "scratch"
    text: nn.Module
    if pretrained_text:
        text = _text(task, text_encoder)
    else:
        if "words" not in meta:
            raise IncompatibleError("the dataset has no questions", where="teacher", fix="choose a VQA dataset")
        text = ScratchText(meta["words"], task.inputs["question"].shape[0], width, text_layers, dropout)
    with torch.no_grad():
        image.eval()
        positions = image(torch.zeros(1, *task.inputs["image"].shape)).shape[1]
        image.train()
    return VQACoAttention(
        task,
        image,
        text,
        pretrained_text=pretrained_text,
        width=width,
        attention_heads=attention_heads,
        layers=layers,
        dropout=dropout,
        positions=positions,
        freeze=freeze and image_encoder != "scratch" and _has_weights(image_encoder, image_weights),
        freeze_text=freeze and pretrained_text,
    )


def vqa_film(
    task: Task,
    *,
    text_encoder: str,
    image_encoder: str = "efficientnet-lite0",
    image_weights: str | None = None,
    image_size: int | None = None,
    components: int = 3,
    width: int = 256,
    dropout: float = 0.5,
) -> nn.Module:
    """A VQA teacher for data sets of a few hundred images: frozen pre-trained encoders, and a question whose features a
    few principal components of the image scale and shift (FiLM, Perez et al. 2018).

    Args:
        task: inputs and answers.
        text_encoder: folder, hub id or "package:folder" of a Hugging Face text encoder; the dataset needs the same
            name as its tokenizer.
        image_encoder: "efficientnet-lite0", "torchvision:resnet18" and the like with image_weights, or the folder or
            hub id of a Hugging Face vision model.
        image_weights: for torchvision: a file of weights, or "DEFAULT" to download torchvision's own.
        image_size: side that images are resized to for the image encoder; by default the dataset's.
        components: principal components of what the image encoder says that are kept.
        width: features of a question.
        dropout: share of these features dropped while training.

    Raises:
        IncompatibleError: the dataset gives no tokens for the text encoder.
        OptionError: the image encoder has no weights to begin with, or there are no components.
    """
    if image_encoder == "scratch" or not _has_weights(image_encoder, image_weights) or components < 1:
        raise OptionError(
            f"the image encoder '{image_encoder}' with {components} component(s)",
            where="teacher.image_encoder",
            fix="a pre-trained image encoder (image_weights for torchvision), and at least 1 component",
        )
    text = _text(task, text_encoder)
    image = make_image_encoder(
        image_encoder, task.inputs["image"], width=0, blocks=0, weights=image_weights, size=image_size
    )
    return VQAFiLM(task, image, text, components=components, width=width, dropout=dropout)


def _text(task: Task, name: str) -> nn.Module:
    tokens = task.info.meta.get("tokens", {})
    if tokens.get("name") != name:
        raise IncompatibleError(
            f"the dataset's tokenizer is '{tokens.get('name', 'none')}', the text encoder '{name}'",
            where="teacher.text_encoder",
            fix=f"set dataset.tokenizer to '{name}'",
        )
    return HuggingFaceText(name, tokens["pad"])


def _has_weights(name: str, weights: str | None) -> bool:
    return not name.startswith("torchvision:") or weights is not None


def resnet(task: Task, *, width: int = 32, blocks: int = 2, stages: int = 3, dropout: float = 0.2) -> nn.Module:
    """A residual network for small images (He et al. 2016): about 700,000 parameters at its defaults.

    Args:
        task: inputs and width of the prediction.
        width: channels of the first stage; each following one doubles them.
        blocks: residual blocks of each stage.
        stages: resolutions; the first halves the image, each following one its predecessor.
        dropout: share of the pooled features dropped while training.
    """
    body = residual_stages(task.inputs["image"].shape[0], width, blocks, stages)
    return ImageClassifier(task, body, width * 2 ** (stages - 1), dropout)


def torchvision_classifier(
    task: Task,
    *,
    model: str = "resnet18",
    weights: str | None = None,
    image_size: int | None = None,
    dropout: float = 0.2,
) -> nn.Module:
    """Any torchvision classifier with a convolutional part, from scratch or from weights, with a new output layer.

    Args:
        task: inputs and width of the prediction.
        model: torchvision's name, e.g. resnet50, densenet121, efficientnet_b0, convnext_tiny.
        weights: a file of weights (.pth or .safetensors), or "DEFAULT" to download torchvision's own.
        image_size: side that images are resized to first; by default the dataset's.
        dropout: share of the pooled features dropped while training.
    """
    return TorchvisionClassifier(task, TorchvisionImage(torchvision_body(model, weights), image_size), dropout)


def unet(task: Task, *, width: int = 24, depth: int = 3, separable: bool = False) -> nn.Module:
    """A U-Net (Ronneberger et al. 2015) with batch normalisation: about 1,000,000 parameters at its defaults.

    Args:
        task: inputs and number of classes.
        width: channels at full resolution; doubled at each lower one.
        depth: how often the resolution is halved; the image's sides must allow it.
        separable: depthwise separable convolutions, with about an eighth of the parameters.
    """
    return UNet(task, width=width, depth=depth, separable=separable)
