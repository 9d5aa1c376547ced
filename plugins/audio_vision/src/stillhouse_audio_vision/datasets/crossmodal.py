"""Pairs of a handwritten and a spoken digit: a teacher that sees, a student that hears."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.splitting import split_rows
from stillhouse.errors import DataError, OptionError
from stillhouse.types import DataContext, Splits, TensorSpec
from stillhouse_audio_vision.datasets import speech
from stillhouse_audio_vision.datasets.fsdd import DIGITS, RATE, by_speaker, recordings
from stillhouse_audio_vision.datasets.images import digit_images
from stillhouse_audio_vision.datasets.rows import audio_splits, image_statistics
from stillhouse_audio_vision.datasets.sounds import Clips, check_sound_options


def digits_crossmodal(
    context: DataContext,
    *,
    audio: Literal["auto", "fsdd", "synthetic"] = "auto",
    labelled: float = 0.1,
    val_speakers: tuple[str, ...] = ("nicolas",),
    test_speakers: tuple[str, ...] = ("theo", "yweweler"),
    seconds: float = 1.0,
    mels: int = 32,
    hop_ms: float = 16.0,
    augment: dict[str, float] | None = None,
) -> Splits:
    """Each row pairs a recording with an image of the same digit: inputs ``image`` and ``waveform``.

    Only a share of the training pairs is labelled; the others feed soft losses alone, which is where a teacher of
    another modality is worth most (Gupta, Hoffman & Malik 2016). Images of labelled, unlabelled, validation and test
    rows are different ones, and so are the speakers of training, validation and test.

    Args:
        context: where the recordings are, and the seed of the pairs.
        audio: recordings of the Free Spoken Digit Dataset (its files lie in the folder ``fsdd`` beside this dataset's),
            or synthetic ones; ``auto`` takes the real ones where they are.
        labelled: share of the training pairs that have a label.
        val_speakers: speakers held out for validation (real recordings).
        test_speakers: speakers held out for test (real recordings).
        seconds: length of a recording.
        mels: bands of the spectrogram.
        hop_ms: milliseconds between its frames.
        augment: random changes of training recordings: time_mask and freq_mask (largest share), shift (seconds), speed
            (largest relative change), noise_db (lowest signal-to-noise ratio).

    Raises:
        DataError: recordings are missing or unreadable.
        OptionError: an option is out of range.
    """
    check_sound_options(seconds=seconds, rate=RATE, mels=mels, hop_ms=hop_ms)
    if not 0 < labelled <= 1:
        raise OptionError(f"labelled is {labelled}", where="dataset 'digits-crossmodal'", fix="above 0, at most 1")
    if "mixup" in (augment or {}):
        raise OptionError(
            "mixup would mix recordings but not the images paired with them",
            where="dataset 'digits-crossmodal', augment",
            fix="leave mixup out",
        )
    root = context.root.parent / "fsdd"
    real = audio == "fsdd" or (audio == "auto" and (root / "recordings").is_dir())
    if real:
        clips, speakers, _ = recordings(root)
        of_split = by_speaker(speakers, val=val_speakers, test=test_speakers)
    else:
        clips, speakers = speech.spoken_digits(context.seed)
        of_split = by_speaker(speakers, val=(speech.VOICES[3],), test=speech.VOICES[4:])
    parts = {split: clips.take(at) for split, at in of_split.items()}
    if labelled < 1:
        of_digit = parts["train"].target
        chosen = split_rows(len(of_digit), {"labelled": labelled}, context.seed, classes=of_digit)
        parts["unlabelled"] = parts["train"].take(chosen["train"])
        parts["train"] = parts["train"].take(chosen["labelled"])
    images = paired_images(parts, context.seed)
    columns = {split: {"image": value.float() / 255.0} for split, value in images.items()}
    return audio_splits(
        parts,
        name="digits-crossmodal",
        classes=DIGITS,
        rate=RATE,
        seconds=seconds,
        mels=mels,
        hop_ms=hop_ms,
        entry="waveform",
        augment=augment,
        description=("Spoken digits (Free Spoken Digit Dataset)" if real else "Synthetic spoken digits")
        + " paired with handwritten digits",
        simulated=not real,
        columns=columns,
        inputs={"image": TensorSpec((1, 8, 8))},
        meta=image_statistics(images["train"]),
    )


def paired_images(parts: dict[str, Clips], seed: int) -> dict[str, Tensor]:
    """For each row an image of its digit, bytes ``[N, 1, 8, 8]``; no image serves two splits.

    Raises:
        DataError: a digit does not occur among the images of a split.
    """
    images, target = digit_images()
    total = sum(len(clips) for clips in parts.values())
    others = {split: max(0.02, 0.98 * len(clips) / total) for split, clips in parts.items() if split != "train"}
    scale = min(1.0, 0.9 / sum(others.values()))
    fractions = {split: share * scale for split, share in others.items()}
    pools = split_rows(len(target), fractions, seed, classes=target, unit="image")
    random = np.random.default_rng(seed + 1)
    found = {}
    for split, clips in parts.items():
        pool = pools[split]
        chosen = np.empty(len(clips), np.int64)
        for digit in np.unique(clips.target):
            rows, of_digit = np.flatnonzero(clips.target == digit), pool[target[pool] == digit]
            if len(of_digit) == 0:
                raise DataError(f"split '{split}' has no image of digit {digit}", fix="use fewer splits or more rows")
            chosen[rows] = random.choice(of_digit, len(rows), replace=len(rows) > len(of_digit))
        found[split] = images[torch.from_numpy(chosen)]
    return found
