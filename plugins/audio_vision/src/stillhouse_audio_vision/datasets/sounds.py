"""Reading sound files, and bringing clips to one rate and length."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from stillhouse.errors import DataError, OptionError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
LEVEL_DB = 10.0
"""Range of the levels of the parts of a mixture."""


def read_sound(path: Path, rate: int) -> np.ndarray:
    """Samples ``[T]`` of a sound file as one channel at ``rate`` a second, float32 in [-1, 1].

    Raises:
        DataError: the file is missing, unreadable, truncated, empty, or holds values that are not finite.
    """
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise DataError(
            "the sound file does not exist", where=str(path), fix="add it, or correct the table that names it"
        )
    try:
        samples, found = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise DataError(
            f"the sound file cannot be read: {error}", where=str(path), fix="get the file again; it may be truncated"
        ) from error
    if len(samples) == 0:
        raise DataError("the sound file is empty: it holds no samples", where=str(path), fix="record it again")
    declared = _declared_frames(path)
    if declared is not None and declared > len(samples):
        raise DataError(
            f"the sound file holds {len(samples)} of the {declared} samples that its header declares",
            where=str(path),
            fix="get the file again; it is truncated",
        )
    if not np.isfinite(samples).all():
        raise DataError("the sound file holds values that are not finite", where=str(path), fix="convert it again")
    mono = torch.from_numpy(samples.mean(axis=1))
    if found != rate:
        mono = torchaudio.functional.resample(mono, found, rate)
    return np.ascontiguousarray(mono.numpy())


def _declared_frames(path: Path) -> int | None:
    """Samples that a canonical PCM WAV header declares; None for other files. The decoder reads a truncated file
    without complaint."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return None
        block = 0
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"fmt ":
                block = int.from_bytes(file.read(size)[12:14], "little")
                file.seek(size % 2, 1)
            elif chunk[:4] == b"data":
                return size // block if block and size != 0xFFFFFFFF else None
            else:
                file.seek(size + size % 2, 1)
    return 0


def fixed(samples: np.ndarray, length: int) -> np.ndarray:
    """The middle ``length`` samples of ``[T]``, or all of them with silence on both sides."""
    if len(samples) >= length:
        start = (len(samples) - length) // 2
        return samples[start : start + length]
    before = (length - len(samples)) // 2
    return np.pad(samples, (before, length - len(samples) - before))


@dataclass(frozen=True)
class Clips:
    """Clips of one split, before they have one length.

    Args:
        sounds: samples ``[T_i]`` of each.
        target: class ``[N]`` int64, or tags ``[N, L]`` float32.
        index: stable row ids ``[N]``.
        groups: speaker or recording of each; None when clips stand alone.
    """

    sounds: Sequence[np.ndarray]
    target: np.ndarray
    index: np.ndarray
    groups: list[str] | None = None

    def __len__(self) -> int:
        return len(self.sounds)

    def take(self, positions: np.ndarray) -> Clips:
        """Some of them."""
        return Clips(
            sounds=[self.sounds[at] for at in positions],
            target=self.target[positions],
            index=self.index[positions],
            groups=None if self.groups is None else [self.groups[at] for at in positions],
        )


def unit_power(samples: np.ndarray) -> np.ndarray:
    """The samples at unit mean power; silence stays silence."""
    return samples / max(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))), 1e-6)


def mix(
    clips: Clips,
    *,
    rows: int,
    classes: int,
    length: int,
    parts: int,
    first_index: int,
    random: np.random.Generator,
) -> Clips:
    """Mixtures of clips of different classes, with the tags of all their parts.

    Each part is brought to unit power and then to a random level; a clip shorter than the mixture begins anywhere in
    it.

    Args:
        clips: single clips with a class ``[N]`` each.
        rows: mixtures to make.
        classes: number of classes, the width of the tags.
        length: samples of a mixture.
        parts: clips in a mixture.
        first_index: row id of the first mixture.
        random: source of all draws.

    Raises:
        DataError: the clips have fewer classes than a mixture has parts.
    """
    present = np.unique(clips.target)
    if len(present) < parts:
        raise DataError(
            f"a mixture of {parts} clips needs as many classes, the split has {len(present)}",
            where="mixtures",
            fix="use more clips, or fewer parts",
        )
    of_class = {int(each): np.flatnonzero(clips.target == each) for each in present}
    sounds, tags, groups = [], np.zeros((rows, classes), np.float32), []
    for row in range(rows):
        total = np.zeros(length, np.float32)
        chosen = random.choice(present, parts, replace=False)
        sources = []
        for each in chosen:
            at = int(random.choice(of_class[int(each)]))
            gain = 10 ** (random.uniform(-LEVEL_DB / 2, LEVEL_DB / 2) / 20)
            sound = unit_power(clips.sounds[at])
            if len(sound) < length:
                start = int(random.integers(0, length - len(sound) + 1))
                total[start : start + len(sound)] += gain * sound
            else:
                total += gain * fixed(sound, length)
            if clips.groups is not None:
                sources.append(clips.groups[at])
        tags[row, chosen] = 1.0
        groups.append("+".join(sorted(set(sources))))
        sounds.append(0.1 * total)
    index = np.arange(first_index, first_index + rows)
    return Clips(sounds, tags, index, groups if clips.groups is not None else None)


def mixtures_of(
    parts: Mapping[str, Clips], *, rows: int, classes: int, length: int, clips: int, seed: int
) -> dict[str, Clips]:
    """`mix` for each split from its own clips: ``rows`` for training, a quarter as many for each of the others.

    Raises:
        DataError: a split has fewer classes than a mixture has clips.
    """
    random = np.random.default_rng(seed)
    made, first = {}, 0
    for split, single in parts.items():
        count = rows if split == "train" else max(1, rows // 4)
        made[split] = mix(
            single, rows=count, classes=classes, length=length, parts=clips, first_index=first, random=random
        )
        first += count
    return made


def check_sound_options(*, seconds: float, rate: int, mels: int, hop_ms: float, mixtures: int = 0) -> None:
    """Refuse options out of range.

    Raises:
        OptionError: with the range.
    """
    for name, value, low, high in (
        ("seconds", seconds, 0.05, 60.0),
        ("rate", rate, 1000, 192_000),
        ("mels", mels, 4, 512),
        ("hop_ms", hop_ms, 1.0, 200.0),
        ("mixtures", mixtures, 0, 1_000_000),
    ):
        if not low <= value <= high:
            raise OptionError(f"{name} is {value}", where="audio dataset", fix=f"a number from {low:g} to {high:g}")
