"""Texts that only the teacher labels, made from training texts."""

from __future__ import annotations

import numpy as np

from stillhouse.errors import IncompatibleError
from stillhouse.text.rows import TextSplit
from stillhouse.types import Augmenter, DataInfo, Split


def mask_replace(*, mask: float = 0.1, replace: float = 0.1) -> Augmenter:
    """Training texts, some of whose tokens are masked and some replaced by others.

    Each token other than the special ones becomes the tokenizer's mask (its unknown token, where it has none) with
    probability ``mask``, or else, with probability ``replace``, a token drawn from the training texts as often as it
    occurs there. Every training text is taken equally often.

    Source: Tang, Lu, Liu, Mou, Vechtomova, Lin, "Distilling Task-Specific Knowledge from BERT into Simple Neural
    Networks" (2019), section 3.3, whose replacements have the part of speech of what they replace; these have not.

    Args:
        mask: probability that a token is masked.
        replace: probability that a token is replaced; no more than 1 with ``mask``.

    Returns:
        the augmenter.

    Raises:
        ValueError: a probability is out of range, or nothing would change.
    """
    if min(mask, replace) < 0 or not 0 < mask + replace <= 1:
        raise ValueError(f"mask {mask} and replace {replace} must not be below 0, and together above 0, up to 1")

    def augmenter(train: Split, info: DataInfo, count: int, seed: int) -> Split:
        facts = info.meta.get("text")
        if not isinstance(facts, dict):
            raise IncompatibleError(
                "core/mask-replace needs texts, made by stillhouse.text.text_splits",
                where="extra_rows",
                fix="choose another augmenter",
            )
        random = np.random.default_rng(seed)
        rows = []
        for position in range(len(train)):
            row = train.row(position)
            rows.append(row["tokens"][row["mask"]].numpy())
        every = np.concatenate(rows)
        drawn_from = every[~np.isin(every, facts["special"])]
        rounds = -(-count // len(rows))
        order = np.concatenate([random.permutation(len(rows)) for _ in range(rounds)])[:count]
        made = []
        for position in order:
            tokens = rows[position].copy()
            lot = np.where(np.isin(tokens, facts["special"]), 1.0, random.random(len(tokens)))
            others = random.choice(drawn_from, len(tokens)) if len(drawn_from) else tokens
            tokens = np.where(lot < mask, facts["mask"], np.where(lot < mask + replace, others, tokens))
            made.append(tokens.tolist())
        return TextSplit(made, {}, pad=facts["pad"])

    return augmenter
