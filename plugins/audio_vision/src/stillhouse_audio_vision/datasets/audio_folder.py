"""The user's own sound files with a table of tags."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from stillhouse.data.splitting import split_groups, split_rows
from stillhouse.data.tables import files, first_row, read_table, require_columns, words
from stillhouse.errors import DataError, OptionError, nearest
from stillhouse.types import DataContext, Splits
from stillhouse_audio_vision.datasets.rows import audio_splits
from stillhouse_audio_vision.datasets.sounds import Clips, check_sound_options, read_sound

SPLITS = ("train", "val", "test")


def audio_folder(
    context: DataContext,
    *,
    path: Path,
    table: Path = Path("tags.csv"),
    file: str = "file",
    tags: str = "tags",
    separator: str = ";",
    task: Literal["tagging", "classification"] = "tagging",
    classes: tuple[str, ...] | None = None,
    split: str | None = None,
    group: str | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    rate: int = 16000,
    seconds: float = 2.0,
    mels: int = 64,
    hop_ms: float = 10.0,
    input: Literal["waveform", "spectrogram"] = "waveform",
    augment: dict[str, float] | None = None,
) -> Splits:
    """Sound files and a CSV table with a row for each: its name and its tags.

    Args:
        context: what relative paths are relative to, and the seed of the split.
        path: folder of the sound files.
        table: the table, relative to that folder.
        file: column with the file's name, relative to the folder.
        tags: column with the tags of the file; empty for none (tagging only).
        separator: what is between tags.
        task: ``tagging`` (any number of tags) or ``classification`` (exactly one).
        classes: the tags that may occur; by default those that do.
        split: column with ``train``, ``val`` or ``test``; by default rows are split at random.
        group: column with what must not be in two splits (speaker, machine, place).
        val_fraction: share of rows (of groups, where there are any) for validation, when there is no split column.
        test_fraction: likewise for test.
        rate: samples a second; files are resampled.
        seconds: length of a row; longer files are cut to their middle, shorter ones padded.
        mels: bands of the spectrogram.
        hop_ms: milliseconds between its frames.
        input: rows hold waveforms, or spectrograms computed once.
        augment: random changes of training rows: mixup (alpha), time_mask and freq_mask (largest share), shift
            (seconds), speed (largest relative change), noise_db (lowest signal-to-noise ratio).

    Raises:
        DataError: files are missing or unreadable, a tag is not among ``classes``, or a split is empty.
        OptionError: an option is out of range.
    """
    check_sound_options(seconds=seconds, rate=rate, mels=mels, hop_ms=hop_ms)
    folder = context.base / path
    if not folder.is_dir():
        raise DataError("the folder does not exist", where=str(folder), fix="correct 'path'")
    where = folder / table
    rows = read_table(where)
    require_columns(rows, [file, tags, *(column for column in (split, group) if column is not None)], str(where))
    names, target = labels(rows, tags, where, separator=separator, task=task, classes=classes)
    place = {"where": str(where), "first": first_row(where)}
    paths = files(rows[file], folder, **place)
    repeated = pd.Series(paths).duplicated()
    if repeated.any():
        row = int(np.argmax(repeated))
        raise DataError(
            f"row {row + 2}: '{rows[file].iloc[row]}' is in the table twice",
            where=str(where),
            fix="keep one row",
        )
    groups = words(rows[group], **place) if group is not None else None
    fractions = {"val": val_fraction, "test": test_fraction}
    if split is not None:
        of_split = given_split(rows[split], where)
    elif groups is not None:
        of_split = split_groups(groups, fractions, context.seed, where=str(where))
    else:
        of_row = np.array(names)[target] if target.ndim == 1 else None
        of_split = split_rows(len(rows), fractions, context.seed, classes=of_row, unit="file", where=str(where))
    clips = Clips([read_sound(each, rate) for each in paths], target, np.arange(len(paths)), groups)
    return audio_splits(
        {name: clips.take(at) for name, at in of_split.items()},
        name="audio-folder",
        classes=names,
        rate=rate,
        seconds=seconds,
        mels=mels,
        hop_ms=hop_ms,
        entry=input,
        augment=augment,
        description=f"Sound files of '{Path(path).name}'",
    )


def labels(
    rows: pd.DataFrame, column: str, where: Path, *, separator: str, task: str, classes: tuple[str, ...] | None
) -> tuple[list[str], np.ndarray]:
    """Class names, and tags ``[N, L]`` float32 or classes ``[N]`` int64.

    Raises:
        DataError: a tag is not among ``classes``, none occurs, or a row has other than one class.
    """
    texts = ["" if pd.isna(value) else str(value) for value in rows[column]]
    if not separator:
        raise OptionError("separator is empty", where="dataset 'audio-folder'", fix="e.g. separator: ';'")
    given = [[tag.strip() for tag in text.split(separator) if tag.strip()] for text in texts]
    names = sorted({tag for row in given for tag in row}) if classes is None else list(classes)
    if not names:
        raise DataError("no row has a tag", where=f"{where}, column '{column}'", fix="fill the column")
    for number, row in enumerate(given):
        for tag in row:
            if tag not in names:
                raise DataError(
                    f"row {number + 2}: '{tag}' is not among the declared classes",
                    where=str(where),
                    fix=nearest(tag, names),
                )
        if task == "classification" and len(row) != 1:
            raise DataError(
                f"row {number + 2} has {len(row)} classes, not one",
                where=str(where),
                fix="name one, or set task: tagging",
            )
    if task == "classification":
        return names, np.array([names.index(row[0]) for row in given], dtype=np.int64)
    target = np.zeros((len(given), len(names)), np.float32)
    for number, row in enumerate(given):
        target[number, [names.index(tag) for tag in row]] = 1.0
    return names, target


def given_split(column: pd.Series, where: Path) -> dict[str, np.ndarray]:
    """Positions of each split, as the column says.

    Raises:
        DataError: the column has a value that is no split's name.
    """
    found = words(column, where=str(where), first=first_row(where))
    for number, value in enumerate(found):
        if value not in SPLITS:
            raise DataError(f"row {number + 2}: {column.name} is '{value}'", where=str(where), fix="train, val or test")
    return {name: np.flatnonzero(np.array(found) == name) for name in SPLITS}
