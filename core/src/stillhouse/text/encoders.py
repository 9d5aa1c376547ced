"""Encoders of Hugging Face as teachers and students: whole, from a configuration, or some layers of one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.text.attention import NAME, add_scores, register
from stillhouse.text.lora import add_adapters, merge_adapters
from stillhouse.text.pretrained import pretrained as from_pretrained
from stillhouse.text.pretrained import require
from stillhouse.text.vocabulary import OwnVocabulary, text_facts
from stillhouse.types import Task
from stillhouse.units import output_layer

SMALL = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
"""The encoder that is made where neither ``pretrained`` nor ``config`` is given."""


def pooled(states: Tensor, mask: Tensor, pool: str) -> Tensor:
    """One vector a row ``[B, D]`` of states ``[B, T, D]``: the mean over tokens, or the first token's."""
    if pool == "first":
        return states[:, 0]
    kept = mask.unsqueeze(2).to(states.dtype)
    return (states * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1.0)


class HFEncoder(nn.Module):
    """An encoder and an output layer. Modules to tap: ``encoder.embeddings``, the layers of the encoder (of BERT
    ``encoder.encoder.layer.0``), and the attention scores of each before the softmax (``....attention.self.scores``).

    Args:
        encoder: of transformers.
        task: kind and width of the prediction.
        pool: what stands for a row: ``"mean"`` of its tokens, or the ``"first"``; every token stands for itself where
            the prediction is a sequence.
        dropout: probability of dropping a feature before the output layer.
        vocabulary: numbers that the encoder knows the tokens by, when not those of the tokenizer.

    Attributes:
        saved_options: options by which the encoder is built again without what it started from.
    """

    def __init__(
        self, encoder: nn.Module, task: Task, *, pool: str, dropout: float, vocabulary: OwnVocabulary | None
    ) -> None:
        super().__init__()
        config: Any = encoder.config
        self.vocabulary = vocabulary if vocabulary is not None else nn.Identity()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.output = output_layer(task.kind, config.hidden_size, task.outputs, task.info)
        self.pool = None if task.kind is OutputKind.SEQUENCE else pool
        # Where it came from is of no use to those who get the model, and may be a path of this machine.
        self.saved_options: dict[str, Any] = {
            "config": {k: v for k, v in config.to_dict().items() if k != "_name_or_path"}
        }

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Predictions ``[B, outputs]``, or ``[B, T, outputs]`` for sequences, of ``tokens`` and ``mask`` ``[B, T]``."""
        states = self.encoder(input_ids=self.vocabulary(tokens), attention_mask=mask.long()).last_hidden_state
        if self.pool is not None:
            states = pooled(states, mask, self.pool)
        prediction: Tensor = self.output(self.dropout(states))
        return prediction

    def merge_adapters(self) -> None:
        """Merge what LoRA has learnt into the encoder, see `stillhouse.text.lora.merge_adapters`; saved as it is then,
        the model needs no peft."""
        if merge_adapters(self.encoder):
            self.saved_options["lora_rank"] = 0


def hf_encoder(
    task: Task,
    *,
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    vocabulary: int | None = None,
    pool: Literal["mean", "first"] = "mean",
    dropout: float = 0.1,
    frozen: int = 0,
    lora_rank: int = 0,
) -> nn.Module:
    """An encoder of Hugging Face: with the weights of a pretrained one, or new from a configuration.

    Args:
        task: what the framework gives.
        pretrained: folder, hub id or "package:folder" of an encoder; the dataset must use its tokenizer.
        config: fields of the configuration, "model_type" among them (bert, distilbert, mobilebert, electra, ...) where
            there is no pretrained one; a small BERT without either.
        vocabulary: know only so many of the most frequent tokens of the training rows; all by default.
        pool: what stands for a text: the mean of its tokens, or the first ([CLS]).
        dropout: probability of dropping a feature before the output layer.
        frozen: keep the embeddings and so many of the first layers as they are; 0 lets all learn.
        lora_rank: keep the pretrained weights, and train low-rank adapters of this rank beside its linear layers, which
            are merged at the end; 0 trains all weights. Needs stillhouse[lora].

    Raises:
        IncompatibleError: the dataset has no texts, or more tokens than the pretrained encoder.
        OptionError: an option is out of range.
        DataError: the pretrained encoder cannot be had.
        MissingDependencyError: ``lora_rank`` is set, and peft is not installed.
    """
    who = "core/hf-encoder"
    if lora_rank and (frozen or (task.pretrained and pretrained is None)):
        raise OptionError(
            f"lora_rank is {lora_rank} " + (f"and frozen {frozen}" if frozen else "without 'pretrained'"),
            where=who,
            fix="leave 'frozen' out: LoRA keeps all pretrained weights" if frozen else "name a pretrained encoder",
        )
    made = _build(task, pretrained, config, vocabulary, pool, dropout, frozen, None, who)
    add_adapters(made.encoder, lora_rank, who)
    return made


def hf_layers(
    task: Task,
    *,
    pretrained: str | None = None,
    config: dict[str, Any] | None = None,
    every: int = 2,
    layers: tuple[int, ...] | None = None,
    vocabulary: int | None = None,
    pool: Literal["mean", "first"] = "mean",
    dropout: float = 0.1,
) -> nn.Module:
    """A student with the embeddings and every second layer of an encoder, the initialisation of DistilBERT (Sanh,
    Debut, Chaumond, Wolf, 2019, section 3).

    Args:
        task: what the framework gives.
        pretrained: folder, hub id or "package:folder" of the encoder, usually that which the teacher starts from.
        config: fields of the configuration, as for core/hf-encoder.
        every: take every so many-th layer, from the first.
        layers: the layers to take instead, from 0, in order.
        vocabulary: know only so many of the most frequent tokens of the training rows; all by default.
        pool: what stands for a text: the mean of its tokens, or the first ([CLS]).
        dropout: probability of dropping a feature before the output layer.

    Raises:
        IncompatibleError, OptionError, DataError: as for core/hf-encoder.
    """
    if every < 1:
        raise OptionError(f"every is {every}", where="core/hf-layers", fix="1 or more")
    chosen = slice(None, None, every) if layers is None else list(layers)
    return _build(task, pretrained, config, vocabulary, pool, dropout, 0, chosen, "core/hf-layers")


def _build(
    task: Task,
    name: str | None,
    fields: dict[str, Any] | None,
    vocabulary: int | None,
    pool: str,
    dropout: float,
    frozen: int,
    layers: slice | Sequence[int] | None,
    who: str,
) -> HFEncoder:
    if not 0 <= dropout < 1:
        raise OptionError(f"dropout is {dropout}", where=who, fix="a number from 0 to below 1")
    require("transformers", f"'{who}'")
    register()
    facts = text_facts(task, f"'{who}'")
    own = None if vocabulary is None else OwnVocabulary(facts, vocabulary)
    if name is None or not task.pretrained:
        encoder = _from_config(fields or SMALL, facts, own, who)
        if task.pretrained:  # a saved configuration has the chosen layers only
            _keep_layers(encoder, layers, who)
    else:
        encoder = _from_weights(name, fields or {}, facts, own, who)
        _keep_layers(encoder, layers, who)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # it has no part in the prediction
    add_scores(encoder)
    _freeze(encoder, frozen, who)
    return HFEncoder(encoder, task, pool=pool, dropout=dropout, vocabulary=own)


def _from_config(fields: dict[str, Any], facts: dict[str, Any], own: OwnVocabulary | None, who: str) -> Any:
    from transformers import AutoConfig, AutoModel

    given = dict(fields)
    try:
        config = AutoConfig.for_model(given.pop("model_type"), **given)
        if "vocab_size" not in given:
            config.vocab_size = facts["vocabulary"] if own is None else own.size
            config.pad_token_id = facts["pad"] if own is None else 0
        if "max_position_embeddings" in config.to_dict() and config.max_position_embeddings < facts["max_length"]:
            raise ValueError(f"max_position_embeddings is less than the {facts['max_length']} tokens of a text")
        return AutoModel.from_config(config, attn_implementation=NAME)
    except (KeyError, ValueError, TypeError) as error:
        raise OptionError(
            f"no encoder can be made of the configuration {fields}: {str(error).partition(chr(10))[0]}",
            where=f"{who}, config",
            fix="give model_type and fields of its configuration, e.g. {model_type: bert, hidden_size: 128}",
        ) from error


def _from_weights(name: str, fields: dict[str, Any], facts: dict[str, Any], own: OwnVocabulary | None, who: str) -> Any:
    from transformers import AutoConfig, AutoModel

    config = from_pretrained(AutoConfig, name, "encoder", **fields)
    encoder = from_pretrained(AutoModel, name, "encoder", config=config, attn_implementation=NAME)
    if facts["vocabulary"] > config.vocab_size:
        raise IncompatibleError(
            f"the dataset's tokenizer has {facts['vocabulary']} tokens, the encoder '{name}' {config.vocab_size}",
            where=who,
            fix=f"use the tokenizer of the encoder: dataset.tokenizer: {name}",
        )
    if own is not None:
        rows = encoder.get_input_embeddings().weight.detach()[torch.tensor(own.tokens)]
        vectors = nn.Embedding(own.size, rows.shape[1], padding_idx=0)
        vectors.weight.data.copy_(rows)
        encoder.set_input_embeddings(vectors)
        encoder.config.vocab_size, encoder.config.pad_token_id = own.size, 0
    return encoder


def _layers_of(encoder: Any, who: str) -> tuple[nn.Module, str]:
    """The module that has the list of layers, and the name of the list."""
    count = encoder.config.num_hidden_layers
    for module in encoder.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, name
    raise IncompatibleError(
        f"{type(encoder).__name__} has no list of its {count} layers", where=who, fix="choose another encoder"
    )


def _keep_layers(encoder: Any, layers: slice | Sequence[int] | None, who: str) -> None:
    if layers is None:
        return
    holder, name = _layers_of(encoder, who)
    whole = getattr(holder, name)
    chosen = list(range(len(whole)))[layers] if isinstance(layers, slice) else list(layers)
    if not chosen or not all(0 <= layer < len(whole) for layer in chosen):
        raise OptionError(
            f"the encoder has {len(whole)} layers, and layers are {chosen}",
            where=f"{who}, layers",
            fix=f"numbers from 0 to {len(whole) - 1}",
        )
    # Copies, so that a layer that is taken twice does not share its weights.
    setattr(holder, name, nn.ModuleList(copy.deepcopy(whole[layer]) for layer in chosen))
    encoder.config.num_hidden_layers = len(chosen)


def _freeze(encoder: Any, layers: int, who: str) -> None:
    if layers == 0:
        return
    holder, name = _layers_of(encoder, who)
    whole = getattr(holder, name)
    if not 0 < layers <= len(whole):
        raise OptionError(f"frozen is {layers}", where=who, fix=f"0 to {len(whole)}, the number of layers")
    first = [module for module in encoder.children() if "embed" in type(module).__name__.lower()]
    for module in (*first, *whole[:layers]):
        module.requires_grad_(False)


def token_vectors(name: str) -> Tensor:
    """Vectors of the tokens ``[V, D]`` of a pretrained encoder.

    Raises:
        DataError: it cannot be had.
        MissingDependencyError: the extra ``text``, or the package that has it, is not installed.
    """
    require("transformers", f"the encoder '{name}'")
    from transformers import AutoModel

    vectors: Tensor = from_pretrained(AutoModel, name, "encoder").get_input_embeddings().weight.detach().float()
    return vectors
