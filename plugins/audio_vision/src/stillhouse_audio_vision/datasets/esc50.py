"""ESC-50: 2,000 environmental recordings of five seconds in 50 classes and five folds (Piczak, ACM MM 2015, CC
BY-NC)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from stillhouse.data.tables import first_row, read_table, require_columns, whole_numbers
from stillhouse.errors import DataError, OptionError
from stillhouse.types import DataContext, Splits
from stillhouse_audio_vision.datasets.rows import audio_splits
from stillhouse_audio_vision.datasets.sounds import Clips, check_sound_options, mixtures_of, read_sound

HOMEPAGE = "https://github.com/karolpiczak/ESC-50"
COLUMNS = ("filename", "fold", "target", "category", "esc10", "src_file")
FOLDS = (1, 2, 3, 4, 5)
CLASSES = 50


def esc50(
    context: DataContext,
    *,
    test_fold: int = 5,
    val_fold: int = 4,
    esc10: bool = False,
    mixtures: int = 0,
    parts: int = 2,
    rate: int = 16000,
    seconds: float = 5.0,
    mels: int = 64,
    hop_ms: float = 20.0,
    input: Literal["waveform", "spectrogram"] = "waveform",
    augment: dict[str, float] | None = None,
) -> Splits:
    """Environmental sounds in their official folds, in which clips of one source recording stay together; or mixtures
    of them, which makes the classes tags.

    The literature reports the mean over the five test folds; ``test_fold`` chooses one.

    Args:
        context: where the files are, and the seed of mixtures.
        test_fold: fold for test.
        val_fold: fold for validation; the other three are for training.
        esc10: only the ten classes of ESC-10.
        mixtures: training mixtures, with a quarter as many each for validation and test; 0 for single clips.
        parts: clips in a mixture.
        rate: samples a second; the files' 44,100 are resampled.
        seconds: length of a row.
        mels: bands of the spectrogram.
        hop_ms: milliseconds between its frames.
        input: rows hold waveforms, or spectrograms computed once.
        augment: random changes of training rows: mixup (alpha), time_mask and freq_mask (largest share), shift
            (seconds), speed (largest relative change), noise_db (lowest signal-to-noise ratio).

    Raises:
        DataError: files are missing, malformed or unreadable.
        OptionError: an option is out of range.
    """
    check_sound_options(seconds=seconds, rate=rate, mels=mels, hop_ms=hop_ms, mixtures=mixtures)
    if test_fold == val_fold or not {test_fold, val_fold} <= set(FOLDS):
        raise OptionError(
            f"test_fold is {test_fold} and val_fold is {val_fold}",
            where="dataset 'esc50'",
            fix="two of the folds 1 to 5",
        )
    if parts < 2:
        raise OptionError(f"parts is {parts}", where="dataset 'esc50'", fix="2 or more clips in a mixture")
    table, categories = read_meta(context.root, esc10=esc10)
    number = {name: at for at, name in enumerate(categories)}
    sounds = [read_sound(context.root / "audio" / name, rate) for name in table["filename"]]
    clips = Clips(
        sounds,
        table["category"].map(number).to_numpy(dtype=np.int64),
        table.index.to_numpy(dtype=np.int64),
        [str(source) for source in table["src_file"]],
    )
    fold = table["fold"].to_numpy()
    of_split = {
        "train": np.flatnonzero(~np.isin(fold, [test_fold, val_fold])),
        "val": np.flatnonzero(fold == val_fold),
        "test": np.flatnonzero(fold == test_fold),
    }
    chosen = {split: clips.take(at) for split, at in of_split.items()}
    name = "ESC-10" if esc10 else "ESC-50"
    description = f"{name} environmental sounds, test fold {test_fold}"
    if mixtures:
        chosen = mixtures_of(
            chosen,
            rows=mixtures,
            classes=len(categories),
            length=round(seconds * rate),
            clips=parts,
            seed=context.seed,
        )
        description = f"Mixtures of {parts} clips of {name}, test fold {test_fold}"
    return audio_splits(
        chosen,
        name="esc50",
        classes=categories,
        rate=rate,
        seconds=seconds,
        mels=mels,
        hop_ms=hop_ms,
        entry=input,
        augment=augment,
        description=description,
    )


def read_meta(root: Path, *, esc10: bool) -> tuple[pd.DataFrame, list[str]]:
    """The rows of ``meta/esc50.csv`` (of ESC-10 only) and their class names in order of the official numbers.

    Raises:
        DataError: the file is missing or malformed, or a class or fold is outside the declared set.
    """
    path = root / "meta" / "esc50.csv"
    if not path.is_file() or not (root / "audio").is_dir():
        raise DataError(
            "ESC-50 is not there: missing meta/esc50.csv or the folder audio/",
            where=str(root),
            fix=f"put the folders 'audio' and 'meta' of {HOMEPAGE} there",
        )
    table = read_table(path)
    require_columns(table, COLUMNS, str(path))
    for column, low, high in (("fold", FOLDS[0], FOLDS[-1]), ("target", 0, CLASSES - 1)):
        table[column] = whole_numbers(table[column], low=low, high=high, where=str(path), first=first_row(path))
    known = {"True": True, "False": False}
    flags = table["esc10"].astype(str).map(known)
    if flags.isna().any():
        row = int(np.argmax(flags.isna()))
        raise DataError(f"row {row + 2}: esc10 is '{table['esc10'].iloc[row]}'", where=str(path), fix="True or False")
    if esc10:
        table = table[flags.astype(bool)]
    pairs = table[["target", "category"]].drop_duplicates().sort_values("target")
    doubled = pairs["target"].duplicated() | pairs["category"].duplicated()
    if doubled.any():
        first = pairs[doubled].iloc[0]
        raise DataError(
            f"class {first['target']} and category '{first['category']}' do not belong to each other alone",
            where=str(path),
            fix="get meta/esc50.csv again",
        )
    return table, [str(name) for name in pairs["category"]]
