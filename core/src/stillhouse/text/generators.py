"""Models of Hugging Face that write texts, as teachers and students: sequence-to-sequence and causal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.text.pretrained import pretrained as from_pretrained
from stillhouse.text.pretrained import require
from stillhouse.types import Task

SMALL_SEQ2SEQ = {"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
SMALL_CAUSAL = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
}
"""The models that are made where neither ``pretrained`` nor ``config`` is given."""


def pair_facts(task: Task, who: str) -> dict[str, Any]:
    """What a dataset of pairs of texts tells of its tokens, see `stillhouse.text.pair_splits`.

    Raises:
        IncompatibleError: the dataset has no pairs of texts.
    """
    facts = task.info.meta.get("text")
    if not isinstance(facts, dict) or not {"source", "source_mask", "given"} <= set(task.inputs):
        raise IncompatibleError(
            f"{who} takes source, source_mask and given, the dataset has {', '.join(task.inputs) or 'no inputs'}",
            where="the dataset's inputs",
            fix="choose a dataset of pairs of texts, made by stillhouse.text.pair_splits",
        )
    return facts


def until_end(written: Tensor, end: int) -> Tensor:
    """Which of the ids ``[B, L]`` are part of a text that is written: up to its first end, which is one of them; bool.

    Args:
        written: ids.
        end: id that ends a text.
    """
    ends = (written == end).int()
    return (ends.cumsum(dim=1) - ends) == 0


class TextWriter(nn.Module, ABC):
    """A model that writes a text token by token after one that it reads.

    Args:
        model: of transformers, with a ``generate``.
        facts: see `pair_facts`.

    Attributes:
        saved_options: options by which the model is built again without what it started from.
    """

    def __init__(self, model: Any, facts: dict[str, Any]) -> None:
        super().__init__()
        from transformers import GenerationConfig

        self.model = model
        self.start, self.end, self.pad = facts["start"], facts["end"], facts["pad"]
        # One that was pretrained may ask for penalties and forced tokens of its own.
        model.generation_config = GenerationConfig()
        self.saved_options = {"config": {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}}

    @abstractmethod
    def forward(self, source: Tensor, source_mask: Tensor, given: Tensor) -> Tensor:
        """Logits ``[B, L, V]`` of the token behind each of those ``given`` ``[B, L]``, after a text that is read
        (``source`` and ``source_mask``, ``[B, S]``)."""

    @torch.no_grad()
    def generate(
        self,
        source: Tensor,
        source_mask: Tensor,
        *,
        max_tokens: int,
        beams: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
    ) -> Tensor:
        """Ids of the texts that it writes ``[B, max_tokens]``, each up to its end token and padded behind it.

        Args:
            source: ids of the texts that are read ``[B, S]``.
            source_mask: where they have a token ``[B, S]``.
            max_tokens: most tokens to write, the end included.
            beams: width of the beam search (scores divided by length); 1 takes the likeliest token each time.
            sample: draw each token, by torch's global generator, from all of the vocabulary instead.
            temperature: divides the logits that tokens are drawn by.
        """
        from transformers import GenerationConfig

        drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if sample else {}
        config = GenerationConfig(
            max_new_tokens=max_tokens,
            num_beams=beams,
            bos_token_id=self.start,
            decoder_start_token_id=self.start,
            eos_token_id=self.end,
            pad_token_id=self.pad,
            **drawn,
        )
        training = self.training
        self.eval()
        try:
            written = self._generate(source, source_mask, config)
        finally:
            self.train(training)
        written = torch.where(until_end(written, self.end), written, self.pad)
        return torch.nn.functional.pad(written, (0, max_tokens - written.shape[1]), value=self.pad)

    @abstractmethod
    def _generate(self, source: Tensor, source_mask: Tensor, config: Any) -> Tensor:
        """Ids that the model writes, ``[B, at most max_tokens]``, without what it was given."""


class Seq2SeqWriter(TextWriter):
    """An encoder of the text that is read, and a decoder of the one that is written."""

    def forward(self, source: Tensor, source_mask: Tensor, given: Tensor) -> Tensor:
        """See `TextWriter.forward`."""
        found: Tensor = self.model(
            input_ids=source, attention_mask=source_mask.long(), decoder_input_ids=given, use_cache=False
        ).logits
        return found

    def _generate(self, source: Tensor, source_mask: Tensor, config: Any) -> Tensor:
        written: Tensor = self.model.generate(source, attention_mask=source_mask.long(), generation_config=config)
        return written[:, 1:]


class CausalWriter(TextWriter):
    """One model that goes on where the text that is read, and the start token behind it, end."""

    def _prompt(self, source: Tensor, source_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The texts that are read with their padding before them, so that what is written follows at once."""
        order = torch.argsort(source_mask.long(), dim=1, stable=True)
        return source.gather(1, order), source_mask.gather(1, order)

    def forward(self, source: Tensor, source_mask: Tensor, given: Tensor) -> Tensor:
        """See `TextWriter.forward`."""
        tokens, mask = self._prompt(source, source_mask)
        mask = torch.cat([mask, torch.ones_like(given, dtype=torch.bool)], dim=1).long()
        found: Tensor = self.model(
            input_ids=torch.cat([tokens, given], dim=1),
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp_min(0),
            use_cache=False,
        ).logits
        return found[:, source.shape[1] :]

    def _generate(self, source: Tensor, source_mask: Tensor, config: Any) -> Tensor:
        tokens, mask = self._prompt(source, source_mask)
        start = torch.full_like(tokens[:, :1], self.start)
        tokens, mask = torch.cat([tokens, start], dim=1), torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        written: Tensor = self.model.generate(tokens, attention_mask=mask.long(), generation_config=config)
        return written[:, tokens.shape[1] :]


def hf_seq2seq(task: Task, *, pretrained: str | None = None, config: dict[str, Any] | None = None) -> nn.Module:
    """A sequence-to-sequence model of Hugging Face: with the weights of a pretrained one, or new from a configuration.

    Args:
        task: what the framework gives.
        pretrained: folder, hub id or "package:folder" of a model; the dataset must use its tokenizer.
        config: fields of the configuration, "model_type" among them (t5, bart, marian, ...) where there is no
            pretrained one; a small T5 without either.

    Raises:
        IncompatibleError: the dataset has no pairs of texts, or more tokens than the pretrained model.
        OptionError: no model can be made of the configuration.
        DataError: the pretrained model cannot be had.
    """
    made, facts = _build(task, pretrained, config, "AutoModelForSeq2SeqLM", SMALL_SEQ2SEQ, "core/hf-seq2seq")
    return Seq2SeqWriter(made, facts)


def hf_causal(task: Task, *, pretrained: str | None = None, config: dict[str, Any] | None = None) -> nn.Module:
    """A causal language model of Hugging Face: with the weights of a pretrained one, or new from a configuration. It
    reads the source, then the start token, and goes on with the target.

    Args:
        task: what the framework gives.
        pretrained: folder, hub id or "package:folder" of a model; the dataset must use its tokenizer.
        config: fields of the configuration, "model_type" among them (llama, gpt2, ...) where there is no pretrained
            one; a small Llama without either.

    Raises:
        IncompatibleError: the dataset has no pairs of texts, or more tokens than the pretrained model.
        OptionError: no model can be made of the configuration.
        DataError: the pretrained model cannot be had.
    """
    made, facts = _build(task, pretrained, config, "AutoModelForCausalLM", SMALL_CAUSAL, "core/hf-causal")
    return CausalWriter(made, facts)


def _build(
    task: Task, name: str | None, fields: dict[str, Any] | None, loader: str, small: dict[str, Any], who: str
) -> tuple[Any, dict[str, Any]]:
    require("transformers", f"'{who}'")
    import transformers

    facts, auto = pair_facts(task, f"'{who}'"), getattr(transformers, loader)
    if name is not None and task.pretrained:
        config = from_pretrained(transformers.AutoConfig, name, "model", **(fields or {}))
        model = from_pretrained(auto, name, "model", config=config)
        if facts["vocabulary"] > config.vocab_size:
            raise IncompatibleError(
                f"the dataset's tokenizer has {facts['vocabulary']} tokens, the model '{name}' {config.vocab_size}",
                where=who,
                fix=f"use the tokenizer of the model: dataset.tokenizer: {name}",
            )
        if config.vocab_size > task.outputs:  # some are padded to a round number
            model.resize_token_embeddings(task.outputs)
    else:
        model = _from_config(fields or small, facts, task, auto, who)
    longest = getattr(model.config, "max_position_embeddings", None)
    needed = facts["max_length"] + (facts["max_target"] if loader == "AutoModelForCausalLM" else 0)
    if longest is not None and longest < max(needed, facts["max_target"]):
        raise IncompatibleError(
            f"the model has {longest} positions, the texts up to {max(needed, facts['max_target'])} tokens",
            where=who,
            fix="lower dataset.max_length or max_target",
        )
    return model, facts


def _from_config(fields: dict[str, Any], facts: dict[str, Any], task: Task, auto: Any, who: str) -> Any:
    from transformers import AutoConfig

    given = {"tie_word_embeddings": True, **fields}
    given |= {"vocab_size": task.outputs, "pad_token_id": facts["pad"], "eos_token_id": facts["end"]}
    given |= {"bos_token_id": facts["start"], "decoder_start_token_id": facts["start"]}
    try:
        return auto.from_config(AutoConfig.for_model(given.pop("model_type"), **given))
    except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise OptionError(
            f"no model can be made of the configuration {fields}: {str(error).partition(chr(10))[0]}",
            where=f"{who}, config",
            fix="give model_type and fields of its configuration, e.g. {model_type: t5, d_model: 128, num_layers: 2}",
        ) from error
