"""Captions of images and their translations, text only: Multi30k from English to German, or a generated sample."""

from __future__ import annotations

import gzip
import itertools
import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from stillhouse.data.splitting import split_rows
from stillhouse.errors import DataError
from stillhouse.text import pair_splits
from stillhouse.types import DataContext, Splits

HOMEPAGE = "https://github.com/multi30k/dataset"
FILES = {"train": "train", "val": "val", "test": "test_2016_flickr"}
LANGUAGES = ("en", "de")

WHO = (
    ("A man", "Ein Mann"),
    ("A woman", "Eine Frau"),
    ("A small child", "Ein kleines Kind"),
    ("Two girls", "Zwei Mädchen"),
    ("Three boys", "Drei Jungen"),
    ("An old dog", "Ein alter Hund"),
    ("Two firefighters", "Zwei Feuerwehrleute"),
    ("A tall musician", "Ein großer Musiker"),
)
SINGULAR = {"A man", "A woman", "A small child", "An old dog", "A tall musician"}
DOES = (
    (("is waiting", "wartet"), ("are waiting", "warten")),
    (("is sleeping", "schläft"), ("are sleeping", "schlafen")),
    (("is playing", "spielt"), ("are playing", "spielen")),
    (("is running", "rennt"), ("are running", "rennen")),
    (("is dancing", "tanzt"), ("are dancing", "tanzen")),
)
WHERE = (
    ("in the park", "im Park"),
    ("on the beach", "am Strand"),
    ("in front of a red house", "vor einem roten Haus"),
    ("next to a green car", "neben einem grünen Auto"),
    ("under a tree", "unter einem Baum"),
    ("on the street", "auf der Straße"),
)


def caption_translation(
    context: DataContext,
    *,
    path: Path | None = None,
    rows: Annotated[int, Field(ge=1)] | None = None,
    tokenizer: str = "byte-bpe",
    vocabulary: int = 8000,
    max_length: int = 64,
    max_target: int = 64,
) -> Splits:
    """Captions in English and their German translations, on the official split (29,000, 1,014, and the 1,000 of the
    test of 2016), or a generated sample where the files are not there.

    Args:
        context: what the framework gives.
        path: folder of train, val and test_2016_flickr, ``.en.gz`` and ``.de.gz`` (or unpacked); by default
            audio_vision/multi30k in STILLHOUSE_DATA, and a sample of this package's own making when it is not there.
        rows: train on the first so many pairs; on all by default.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "byte-bpe", "wordpiece" or "bpe":
            one is trained on the training rows, for both languages.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of an English caption that are kept.
        max_target: tokens of a German caption that are learnt; all of it is judged.

    Raises:
        DataError: a file cannot be used, or ``path`` does not name the folder.
        OptionError: an option is out of range.
    """
    folder = context.base / path if path is not None else context.root.parent / "multi30k"
    simulated = path is None and not folder.is_dir()
    if simulated:
        warnings.warn(
            f"'{folder}' is not there: generated captions stand in for it. Their numbers say nothing of real "
            f"translations ({HOMEPAGE})",
            stacklevel=2,
        )
        found = _sample(context.seed)
    else:
        found = {name: read_pairs(folder, file) for name, file in FILES.items()}
    if rows is not None:
        found["train"] = found["train"][:rows]
    ends = np.cumsum([0, *(len(part) for part in found.values())])
    pairs = [pair for part in found.values() for pair in part]
    parts = {name: list(range(*span)) for name, *span in zip(found, ends[:-1], ends[1:], strict=True)}
    return pair_splits(
        [english for english, _ in pairs],
        [german for _, german in pairs],
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        max_target=max_target,
        parts=parts,
        column="en",
        description="Generated captions" if simulated else "Multi30k, English to German, test of 2016",
        simulated=simulated,
        where=str(folder),
    )


def read_pairs(folder: Path, name: str) -> list[tuple[str, str]]:
    """Lines of the two files of one split.

    Raises:
        DataError: a file is not there or cannot be read, is not as long as the other, or has an empty line.
    """
    lines = []
    for language in LANGUAGES:
        packed, plain = folder / f"{name}.{language}.gz", folder / f"{name}.{language}"
        file = packed if packed.is_file() else plain
        try:
            data = gzip.decompress(file.read_bytes()) if file == packed else file.read_bytes()
            lines.append([line.strip() for line in data.decode("utf-8").rstrip("\n").split("\n")])
        except FileNotFoundError as error:
            raise DataError(
                "Multi30k is not there",
                where=str(packed),
                fix=f"get the raw files of task 1 ({HOMEPAGE}) and put them into that folder, or set dataset.path",
            ) from error
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise DataError(f"the file cannot be read: {error}", where=str(file), fix="get it again") from error
        if "" in lines[-1]:
            raise DataError(f"line {lines[-1].index('') + 1} is empty", where=str(file), fix="get the file again")
    if len(lines[0]) != len(lines[1]):
        raise DataError(
            f"'{name}' has {len(lines[0])} lines in English and {len(lines[1])} in German",
            where=str(folder),
            fix="get both files again, of the same release",
        )
    return list(zip(*lines, strict=True))


def _sample(seed: int) -> dict[str, list[tuple[str, str]]]:
    """Every sentence that the parts make, once, split at random."""
    pairs = []
    for who, does, where in itertools.product(WHO, DOES, WHERE):
        verb = does[0 if who[0] in SINGULAR else 1]
        english, german = (f"{who[side]} {verb[side]} {where[side]}." for side in (0, 1))
        pairs.append((english, german))
    split = split_rows(len(pairs), {"test": 0.2, "val": 0.1}, seed)
    return {name: [pairs[at] for at in split[name]] for name in FILES}
