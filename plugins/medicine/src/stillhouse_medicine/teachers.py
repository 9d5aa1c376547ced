"""Teachers: co-attention over image and question, residual networks, a U-Net."""

from __future__ import annotations

import torch
from torch import nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.types import Task
from stillhouse_medicine.classifiers import ImageClassifier, TorchvisionClassifier
from stillhouse_medicine.coattention import VQACoAttention
from stillhouse_medicine.encoders.images import SCRATCH, TorchvisionImage, has_weights, torchvision_body
from stillhouse_medicine.encoders.images import image_encoder as make_image_encoder
from stillhouse_medicine.encoders.questions import HuggingFaceText, ScratchText
from stillhouse_medicine.film import VQAFiLM
from stillhouse_medicine.layers import residual_stages
from stillhouse_medicine.unet import UNet


def vqa_coattention(
    task: Task,
    *,
    image_encoder: str = SCRATCH,
    image_weights: str | None = None,
    image_size: int | None = None,
    image_width: int = 24,
    image_blocks: int = 1,
    text_encoder: str = SCRATCH,
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
    image = make_image_encoder(
        image_encoder,
        task.inputs["image"],
        width=image_width,
        blocks=image_blocks,
        weights=image_weights,
        size=image_size,
    )
    with torch.no_grad():
        image.eval()
        positions = image(torch.zeros(1, *task.inputs["image"].shape)).shape[1]
        image.train()
    return VQACoAttention(
        task,
        image,
        _text(task, text_encoder, width, text_layers, dropout),
        pretrained_text=text_encoder != SCRATCH,
        width=width,
        attention_heads=attention_heads,
        layers=layers,
        dropout=dropout,
        positions=positions,
        freeze=freeze and has_weights(image_encoder, image_weights),
        freeze_text=freeze and text_encoder != SCRATCH,
    )


def vqa_film(
    task: Task,
    *,
    image_encoder: str = SCRATCH,
    image_weights: str | None = None,
    image_size: int | None = None,
    image_width: int = 24,
    text_encoder: str = SCRATCH,
    text_layers: int = 1,
    components: int | None = 3,
    width: int = 256,
    dropout: float = 0.5,
) -> nn.Module:
    """A VQA teacher for data sets of a few hundred images: a few numbers say what an image shows, and scale and shift
    the features of the question (FiLM, Perez et al. 2018). Pre-trained encoders are frozen, and the numbers are then
    principal components of what the image encoder says.

    Args:
        task: inputs and answers.
        image_encoder: "scratch", "efficientnet-lite0", "torchvision:resnet18" and the like, or the folder or hub id of
            a Hugging Face vision model.
        image_weights: for torchvision: a file of weights, or "DEFAULT" to download torchvision's own.
        image_size: side that images are resized to for the image encoder; by default the dataset's.
        image_width: channels of the first stage of "scratch".
        text_encoder: "scratch", or the folder, hub id or "package:folder" of a Hugging Face text encoder; the dataset
            then needs the same name as its tokenizer.
        text_layers: layers of "scratch".
        components: numbers that say what an image shows; null takes all that a pre-trained encoder says, by which each
            image is recognised: for questions about images that training has seen, and for no others.
        width: features of a question.
        dropout: share of these features dropped while training.

    Raises:
        IncompatibleError: the dataset gives no tokens for the text encoder.
        OptionError: there are no components, or null is given with an encoder that learns.
    """
    frozen = has_weights(image_encoder, image_weights)
    if components is None and not frozen:
        raise OptionError(
            "components is null, and the image encoder is not pre-trained",
            where="teacher.components",
            fix="give a number, or a pre-trained image_encoder",
        )
    if components is not None and components < 1:
        raise OptionError(f"components is {components}", where="teacher.components", fix="at least 1")
    image = make_image_encoder(
        image_encoder, task.inputs["image"], width=image_width, blocks=1, weights=image_weights, size=image_size
    )
    return VQAFiLM(
        task,
        image,
        _text(task, text_encoder, width // 2, text_layers, 0.4 * dropout),
        pretrained_text=text_encoder != SCRATCH,
        freeze=frozen,
        components=components,
        width=width,
        dropout=dropout,
    )


def _text(task: Task, name: str, width: int, layers: int, dropout: float) -> nn.Module:
    meta = task.info.meta
    if name == SCRATCH:
        if "words" not in meta:
            raise IncompatibleError("the dataset has no questions", where="teacher", fix="choose a VQA dataset")
        return ScratchText(meta["words"], task.inputs["question"].shape[0], width, layers, dropout)
    tokens = meta.get("tokens", {})
    if tokens.get("name") != name:
        raise IncompatibleError(
            f"the dataset's tokenizer is '{tokens.get('name', 'none')}', the text encoder '{name}'",
            where="teacher.text_encoder",
            fix=f"set dataset.tokenizer to '{name}'",
        )
    return HuggingFaceText(name, tokens["pad"])


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
