"""Texts: tokenizers, rows of token ids, splits without near-duplicates, pairs of texts for models that write, and
readers of new files. Public: plugins' datasets of texts are made here.

Nothing else of the core imports this room; what needs transformers or tokenizers (``pip install 'stillhouse[text]'``)
imports them when it is called.
"""

from stillhouse.text.duplicates import near_duplicates, normalised
from stillhouse.text.pairs import PairReader, pair_splits
from stillhouse.text.pretrained import locate_pretrained, pretrained
from stillhouse.text.ragged import Ragged
from stillhouse.text.reader import TextReader, read_texts
from stillhouse.text.rows import TextSplit
from stillhouse.text.splits import text_splits
from stillhouse.text.tags import TagReader, tagged_splits
from stillhouse.text.tokenizer import Tokenizer

__all__ = [
    "PairReader",
    "Ragged",
    "TagReader",
    "TextReader",
    "TextSplit",
    "Tokenizer",
    "locate_pretrained",
    "near_duplicates",
    "normalised",
    "pair_splits",
    "pretrained",
    "read_texts",
    "tagged_splits",
    "text_splits",
]
