"""Texts as token ids, by any fast tokenizer of Hugging Face or one trained on the training rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from stillhouse.errors import DataError, OptionError
from stillhouse.text.pretrained import locate_pretrained, pretrained, require

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TRAINED = ("wordpiece", "bpe", "byte-bpe")
"""Names of tokenizers that are trained on the training rows."""


class Tokenizer:
    """A tokenizer of the package ``tokenizers``, with its state as JSON, so that a run folder needs no original.

    Args:
        inner: a ``tokenizers.Tokenizer``.
        pad: id of padding.
        unknown: id of what the vocabulary does not have.
        mask: id that stands for a hidden token; that of unknown ones where there is none.
        special: ids of tokens that are no part of a text.
        start: id that a text which is written begins from; that of padding where there is none.
        end: id that ends a text which is written; None where there is none.
    """

    def __init__(
        self,
        inner: Any,
        *,
        pad: int,
        unknown: int,
        mask: int,
        special: Sequence[int],
        start: int | None = None,
        end: int | None = None,
    ) -> None:
        # Encoding is a matter of seconds; threads of its own would disturb loader processes that are forked later.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._inner, self.pad, self.unknown, self.mask = inner, pad, unknown, mask
        self.start, self.end = pad if start is None else start, end
        self.special = tuple(sorted(special))
        inner.no_padding()
        inner.no_truncation()

    @classmethod
    def load(cls, name: str) -> Self:
        """That of a folder, a hub id, or ``package:folder`` inside an installed package.

        Raises:
            DataError: there is none of that name, or it is not a fast one (``tokenizer.json``).
            MissingDependencyError: transformers, or the package that has it, is not installed.
        """
        require("transformers", f"the tokenizer '{name}'")
        locate_pretrained(name)
        from transformers import AutoTokenizer

        found = pretrained(AutoTokenizer, name, "tokenizer")
        inner = getattr(found, "backend_tokenizer", None)
        if inner is None:
            raise DataError(
                f"the tokenizer '{name}' is none of the package 'tokenizers'",
                where=name,
                fix="convert it to a fast tokenizer (tokenizer.json)",
            )
        unknown = int(found.unk_token_id or 0)
        mask = unknown if found.mask_token_id is None else int(found.mask_token_id)
        special = [int(each) for each in found.all_special_ids]
        start, end = (
            next((int(each) for each in ids if each is not None), None)
            for ids in ((found.bos_token_id, found.cls_token_id), (found.eos_token_id, found.sep_token_id))
        )
        pad = int(found.pad_token_id or 0)
        return cls(inner, pad=pad, unknown=unknown, mask=mask, special=special, start=start, end=end)

    @classmethod
    def train(cls, texts: Iterable[str], *, kind: str, vocabulary: int) -> Self:
        """One of one's own, with ``[CLS]`` before and ``[SEP]`` behind each text; equal texts give an equal tokenizer.

        "wordpiece" and "bpe" are in lower case and without accents, for texts that are read. "byte-bpe" (the BPE over
        bytes of GPT-2) loses nothing, so that `decode` gives a text back as it was: for texts that are written.

        Args:
            texts: of training rows only.
            kind: ``"wordpiece"``, ``"bpe"`` or ``"byte-bpe"``.
            vocabulary: largest number of tokens, those of the alphabet and five special ones included.

        Raises:
            OptionError: the kind is unknown, or the vocabulary has no room for the special tokens.
            MissingDependencyError: tokenizers is not installed.
        """
        if kind not in TRAINED or vocabulary <= len(SPECIAL):
            raise OptionError(
                f"a tokenizer '{kind}' of {vocabulary} tokens cannot be trained",
                where="tokenizer",
                fix=f"one of {', '.join(TRAINED)}, with more than {len(SPECIAL)} tokens",
            )
        require("tokenizers", f"a tokenizer '{kind}'")
        from tokenizers import Tokenizer as Inner
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        texts = list(texts)
        pieces = kind == "wordpiece"
        if kind == "byte-bpe":
            alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
            if vocabulary < len(SPECIAL) + len(alphabet):
                raise OptionError(
                    f"a tokenizer over bytes cannot have {vocabulary} tokens",
                    where="tokenizer",
                    fix=f"at least {len(SPECIAL) + len(alphabet)}: every byte and the special ones",
                )
            inner = Inner(models.BPE())
            inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
            options: Any = {"special_tokens": list(SPECIAL), "initial_alphabet": alphabet, "show_progress": False}
            inner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, **options))
            return cls._finished(inner)
        inner = Inner(models.WordPiece(unk_token=UNKNOWN) if pieces else models.BPE(unk_token=UNKNOWN))
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece() if pieces else decoders.BPEDecoder()
        first = [*SPECIAL, *(_inner_letters(inner, texts) if pieces else [])]
        trainer = trainers.WordPieceTrainer if pieces else trainers.BpeTrainer
        inner.train_from_iterator(texts, trainer(vocab_size=vocabulary, special_tokens=first, show_progress=False))
        if pieces:  # letters are pieces of words and no special tokens
            learned = inner.get_vocab()
            inner = _with_model(inner, models.WordPiece(learned, unk_token=UNKNOWN))
        return cls._finished(inner)

    @classmethod
    def _finished(cls, inner: Any) -> Self:
        """With the special tokens of one that was trained."""
        from tokenizers import processors

        inner.add_special_tokens(list(SPECIAL))
        ends = [(token, inner.token_to_id(token)) for token in (START, END)]
        inner.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
        named = {"pad": PAD, "unknown": UNKNOWN, "mask": MASK, "start": START, "end": END}
        numbers = {name: SPECIAL.index(token) for name, token in named.items()}
        return cls(inner, **numbers, special=range(len(SPECIAL)))

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        return int(self._inner.get_vocab_size(with_added_tokens=True))

    def encode(self, texts: Sequence[str], *, max_length: int, special: bool = True) -> list[list[int]]:
        """Ids of each text, at most ``max_length`` and at least one of each.

        Args:
            texts: the texts.
            max_length: ids of a text that are kept.
            special: with the tokenizer's special tokens, such as those at start and end.
        """
        self._inner.enable_truncation(max_length)
        try:
            found = self._inner.encode_batch(list(texts), add_special_tokens=special)
        finally:
            self._inner.no_truncation()
        return [each.ids or [self.unknown] for each in found]

    def pieces(self, text: str, *, max_length: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text as `encode` gives them, and where in the text each begins and ends; special tokens are empty.

        Args:
            text: the text.
            max_length: ids that are kept.
        """
        self._inner.enable_truncation(max_length)
        try:
            found = self._inner.encode(text)
        finally:
            self._inner.no_truncation()
        special = found.special_tokens_mask
        places = [(0, 0) if hidden else place for place, hidden in zip(found.offsets, special, strict=True)]
        return (found.ids, places) if found.ids else ([self.unknown], [(0, 0)])

    def words(self, ids: Sequence[int]) -> list[str]:
        """The name of each token."""
        return [str(self._inner.id_to_token(each)) for each in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens without special ones, as far as the tokenizer keeps it: case and blanks may be lost."""
        return str(self._inner.decode(list(ids), skip_special_tokens=True))

    def state(self) -> dict[str, Any]:
        """JSON-ready state."""
        facts = {"pad": self.pad, "unknown": self.unknown, "mask": self.mask, "special": list(self.special)}
        facts |= {"start": self.start, "end": self.end}
        return {"tokenizer": json.loads(self._inner.to_str()), **facts}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Inverse of `state`.

        Raises:
            MissingDependencyError: tokenizers is not installed.
        """
        require("tokenizers", "reading texts")
        from tokenizers import Tokenizer as Inner

        facts = {name: state[name] for name in ("pad", "unknown", "mask", "special")}
        facts |= {name: state.get(name) for name in ("start", "end")}
        return cls(Inner.from_str(json.dumps(state["tokenizer"])), **facts)


def _inner_letters(inner: Any, texts: Sequence[str]) -> list[str]:
    """Pieces ``##x`` of every letter that stands inside a word, sorted. The trainer would number them as it meets them,
    in an order of its own that differs from run to run, and so would all that it learns from them."""
    words = {
        word for text in texts for word, _ in inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(text))
    }
    return [f"##{letter}" for letter in sorted({letter for word in words for letter in word[1:]})]


def _with_model(inner: Any, model: Any) -> Any:
    """A tokenizer with the same steps around another model, and without added tokens."""
    from tokenizers import Tokenizer as Inner

    made = Inner(model)
    made.normalizer, made.pre_tokenizer, made.decoder = inner.normalizer, inner.pre_tokenizer, inner.decoder
    return made
