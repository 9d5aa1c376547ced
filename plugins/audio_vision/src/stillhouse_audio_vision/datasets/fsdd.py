"""Free Spoken Digit Dataset: spoken digits, one file a recording (Jackson et al., CC BY-SA 4.0)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np

from stillhouse.errors import DataError, OptionError, nearest
from stillhouse.types import DataContext, Splits
from stillhouse_audio_vision.datasets.rows import audio_splits
from stillhouse_audio_vision.datasets.sounds import Clips, check_sound_options, mixtures_of, read_sound

DIGITS = tuple(str(digit) for digit in range(10))
RATE = 8000
HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"
NAME = re.compile(r"(\d+)_([A-Za-z]+)_(\d+)\.wav")
OFFICIAL_TEST = range(5)
OFFICIAL_VAL = range(5, 10)
MOST_INDEX = 1000
"""Recordings of a speaker and digit that row ids leave room for."""


def fsdd(
    context: DataContext,
    *,
    protocol: Literal["speakers", "official"] = "speakers",
    test_speakers: tuple[str, ...] = ("theo", "yweweler"),
    val_speakers: tuple[str, ...] = ("nicolas",),
    mixtures: int = 0,
    seconds: float = 1.0,
    mels: int = 32,
    hop_ms: float = 16.0,
    input: Literal["waveform", "spectrogram"] = "waveform",
    augment: dict[str, float] | None = None,
) -> Splits:
    """Spoken digits of six speakers; or mixtures of two overlapping digits, which makes them tags.

    ``speakers`` holds whole speakers out: none is in two splits. ``official`` is the data set's own split
    (recordings 0 to 4 of each speaker and digit are for test, and 5 to 9 here for validation), in which every test
    speaker is known; it saturates near 99 %.

    Args:
        context: where the files are, and the seed of mixtures.
        protocol: how to split.
        test_speakers: speakers held out for test (protocol ``speakers``).
        val_speakers: speakers held out for validation (protocol ``speakers``).
        mixtures: training mixtures of two different digits, with a quarter as many each for validation and test; 0 for
            single digits.
        seconds: length of a row; longer recordings lose their ends (1 % at one second).
        mels: bands of the spectrogram.
        hop_ms: milliseconds between its frames.
        input: rows hold waveforms, or spectrograms computed once.
        augment: random changes of training rows: mixup (alpha), time_mask and freq_mask (largest share), shift
            (seconds), speed (largest relative change), noise_db (lowest signal-to-noise ratio).

    Raises:
        DataError: files are missing, misnamed or unreadable, or a speaker is not there.
        OptionError: an option is out of range.
    """
    check_sound_options(seconds=seconds, rate=RATE, mels=mels, hop_ms=hop_ms, mixtures=mixtures)
    clips, speakers, numbers = recordings(context.root)
    if protocol == "speakers":
        of_split = by_speaker(speakers, val=val_speakers, test=test_speakers)
    else:
        of_split = {
            "train": np.flatnonzero(numbers >= OFFICIAL_VAL.stop),
            "val": np.flatnonzero(np.isin(numbers, OFFICIAL_VAL)),
            "test": np.flatnonzero(np.isin(numbers, OFFICIAL_TEST)),
        }
        clips = Clips(clips.sounds, clips.target, clips.index)
    parts = {split: clips.take(at) for split, at in of_split.items()}
    description = "Spoken digits of the Free Spoken Digit Dataset"
    if mixtures:
        parts = mixtures_of(
            parts, rows=mixtures, classes=len(DIGITS), length=round(seconds * RATE), clips=2, seed=context.seed
        )
        description = "Two overlapping spoken digits of the Free Spoken Digit Dataset"
    held_out = f", test speakers {' and '.join(test_speakers)}" if protocol == "speakers" else ", official split"
    return audio_splits(
        parts,
        name="fsdd",
        classes=DIGITS,
        rate=RATE,
        seconds=seconds,
        mels=mels,
        hop_ms=hop_ms,
        entry=input,
        augment=augment,
        description=description + held_out,
    )


def recordings(root: Path) -> tuple[Clips, np.ndarray, np.ndarray]:
    """All recordings, the speaker of each and its number.

    Raises:
        DataError: the folder is missing or empty, or a file is misnamed or unreadable.
    """
    folder = root / "recordings"
    files = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if not files:
        raise DataError(
            "the Free Spoken Digit Dataset is not there: missing recordings/{digit}_{speaker}_{number}.wav",
            where=str(root),
            fix=f"put the folder 'recordings' of {HOMEPAGE} there",
        )
    sounds, digits, speakers, numbers = [], [], [], []
    for path in files:
        parts = NAME.fullmatch(path.name)
        if parts is None:
            raise DataError(
                f"'{path.name}' is not named {{digit}}_{{speaker}}_{{number}}.wav",
                where=str(path),
                fix="remove or rename it",
            )
        if parts[1] not in DIGITS:
            raise DataError(f"'{parts[1]}' is not a digit", where=str(path), fix=f"one of {', '.join(DIGITS)}")
        sounds.append(read_sound(path, RATE))
        digits.append(int(parts[1]))
        speakers.append(parts[2])
        numbers.append(int(parts[3]))
    names = sorted(set(speakers))
    of_speaker = np.array([names.index(speaker) for speaker in speakers])
    number = np.array(numbers)
    index = (of_speaker * 10 + np.array(digits)) * MOST_INDEX + number
    return Clips(sounds, np.array(digits, dtype=np.int64), index, speakers), np.array(speakers), number


def by_speaker(speakers: np.ndarray, *, val: tuple[str, ...], test: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Positions of each split; all other speakers are for training.

    Raises:
        DataError: a speaker is not there, or stands in both, or none is left for training.
        OptionError: no speaker is named for validation or test.
    """
    there = sorted(set(speakers.tolist()))
    for option, names in (("val_speakers", val), ("test_speakers", test)):
        if not names:
            raise OptionError(f"{option} is empty", where="dataset 'fsdd'", fix=f"some of {', '.join(there)}")
        for name in names:
            if name not in there:
                raise DataError(f"there is no speaker '{name}'", where=f"fsdd, {option}", fix=nearest(name, there))
    both = sorted(set(val) & set(test))
    if both:
        raise DataError(f"speaker '{both[0]}' is named for validation and test", where="fsdd", fix="name each once")
    if not set(there) - set(val) - set(test):
        raise DataError("no speaker is left for training", where="fsdd", fix="hold out fewer speakers")
    held = np.isin(speakers, val), np.isin(speakers, test)
    return {
        "train": np.flatnonzero(~held[0] & ~held[1]),
        "val": np.flatnonzero(held[0]),
        "test": np.flatnonzero(held[1]),
    }
