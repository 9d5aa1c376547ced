"""From clips or images of each split to the dataset that the framework takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import DataError, OptionError
from stillhouse.types import Batch, DataInfo, Reader, Split, Splits, TensorSpec, TensorSplit
from stillhouse_audio_vision.datasets.augment import (
    AUDIO_KEYS,
    IMAGE_KEYS,
    SPECTROGRAM_KEYS,
    Augmented,
    audio_transform,
    check_keys,
    image_transform,
)
from stillhouse_audio_vision.datasets.reader import AudioReader, ImageReader
from stillhouse_audio_vision.datasets.sounds import Clips, fixed
from stillhouse_audio_vision.frontend import LogMel, mel_settings

STATISTICS_ROWS = 1000
"""Training rows, evenly spread, from which mean and standard deviation are taken."""


def audio_splits(
    parts: Mapping[str, Clips],
    *,
    name: str,
    classes: Sequence[str],
    rate: int,
    seconds: float,
    mels: int,
    hop_ms: float,
    entry: Literal["waveform", "spectrogram"],
    augment: Mapping[str, float] | None,
    description: str,
    simulated: bool = False,
    columns: Mapping[str, Mapping[str, Tensor]] | None = None,
    inputs: Mapping[str, TensorSpec] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Splits:
    """A dataset of clips of one length.

    Args:
        parts: clips of ``train``, ``val``, ``test`` and perhaps ``unlabelled``.
        name: name of the dataset, for errors.
        classes: classes or tags.
        rate: samples a second.
        seconds: length of a row.
        mels: bands of the spectrogram.
        hop_ms: milliseconds between its frames.
        entry: rows hold waveforms, or spectrograms computed once.
        augment: see `augment.audio_transform`.
        description: what the rows are.
        simulated: the rows are simulated.
        columns: further entries by split (paired images).
        inputs: specs of those of them that are inputs.
        meta: further facts for models.

    Raises:
        DataError: a split is empty.
        OptionError: an augmentation is unknown or does not suit ``entry``.
    """
    keys = AUDIO_KEYS if entry == "waveform" else SPECTROGRAM_KEYS
    settings = check_keys(augment, keys, dataset=name)
    length, log_mel = round(seconds * rate), mel_settings(rate, mels, hop_ms)
    if length <= log_mel["fft"] // 2:
        raise OptionError(
            f"{seconds} s are shorter than a window of the spectrogram", where=f"dataset '{name}'", fix="raise seconds"
        )
    refuse_empty({split: len(clips) for split, clips in parts.items()}, name)
    made: dict[str, Split] = {}
    waveforms = {
        split: torch.from_numpy(np.stack([fixed(sound, length) for sound in clips.sounds]).astype(np.float32))
        for split, clips in parts.items()
    }
    front = LogMel(**log_mel)
    train = waveforms["train"]
    shown = spectrograms(front, train[:: max(1, len(train) // STATISTICS_ROWS)])
    mean, std = float(shown.mean()), float(shown.std())
    for split, clips in parts.items():
        value = waveforms[split] if entry == "waveform" else spectrograms(front, waveforms[split])
        rows: dict[str, Tensor] = {entry: value, "index": torch.from_numpy(clips.index.astype(np.int64))}
        if split != "unlabelled":
            rows["target"] = torch.from_numpy(clips.target)
        made[split] = TensorSplit({**rows, **(columns or {}).get(split, {})}, groups=clips.groups)
    shape = tuple(made["train"].row(0)[entry].shape)
    if settings:
        change = audio_transform(settings, log_mel=log_mel, mean=mean, entry=entry, classes=len(classes))
        for split in {"train", "unlabelled"} & set(made):
            made[split] = Augmented(made[split], change, settings)
    info = DataInfo(
        inputs={entry: TensorSpec(shape), **(inputs or {})},
        classes=tuple(classes),
        class_counts=counts(parts["train"].target, len(classes)),
        description=description,
        simulated=simulated,
        meta={"log_mel": log_mel, "log_mel_mean": mean, "log_mel_std": std, **(meta or {})},
    )
    reader = AudioReader(seconds=seconds, entry=entry, **log_mel)
    return assemble(info, made, reader)


@torch.no_grad()
def spectrograms(front: LogMel, waveforms: Tensor, chunk: int = 256) -> Tensor:
    """Log-mel spectrograms ``[N, mels, frames]`` of ``[N, T]``."""
    return torch.cat([front(part) for part in waveforms.split(chunk)])


class PixelSplit(TensorSplit):
    """Rows whose ``image`` is kept as bytes and given as float32 in [0, 1]."""

    def row(self, position: int) -> dict[str, Tensor]:
        """See `Split.row`."""
        return _as_float(super().row(position))

    def batch(self, positions: Sequence[int]) -> Batch:
        """See `Split.batch`."""
        return _as_float(super().batch(positions))

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """See `Split.columns`; images are converted only when asked for."""
        wanted = {name: self._columns[name] for name in names} if names is not None else dict(self._columns)
        return _as_float(wanted)


def _as_float(batch: Batch) -> Batch:
    return {**batch, "image": batch["image"].float() / 255.0} if "image" in batch else batch


def image_splits(
    parts: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    *,
    name: str,
    classes: Sequence[str],
    augment: Mapping[str, float] | None,
    description: str,
    groups: Mapping[str, Sequence[str] | None] | None = None,
) -> Splits:
    """A dataset of images.

    Args:
        parts: images ``[N, C, H, W]`` uint8, classes ``[N]`` and row ids ``[N]`` of ``train``, ``val``, ``test`` and
            perhaps ``unlabelled``, whose classes are left out.
        name: name of the dataset, for errors.
        classes: class names.
        augment: see `augment.image_transform`.
        description: what the rows are.
        groups: groups of the rows of each split, when no group is in two splits.

    Raises:
        DataError: a split is empty.
        OptionError: an augmentation is unknown.
    """
    settings = check_keys(augment, IMAGE_KEYS, dataset=name)
    refuse_empty({split: len(part[1]) for split, part in parts.items()}, name)
    made: dict[str, Split] = {
        split: PixelSplit(
            {"image": image, "index": index} | ({} if split == "unlabelled" else {"target": target}),
            groups=(groups or {}).get(split),
        )
        for split, (image, target, index) in parts.items()
    }
    images, target, _ = parts["train"]
    shape = tuple(images.shape[1:])
    if settings:
        change = image_transform(settings, size=shape[1:], classes=len(classes))
        for split in {"train", "unlabelled"} & set(made):
            made[split] = Augmented(made[split], change, settings)
    info = DataInfo(
        inputs={"image": TensorSpec(shape)},
        classes=tuple(classes),
        class_counts=counts(target.numpy(), len(classes)),
        description=description,
        meta=image_statistics(images),
    )
    return assemble(info, made, ImageReader(shape=list(shape)))


def image_statistics(images: Tensor) -> dict[str, Any]:
    """``image_mean`` and ``image_std`` of each channel of bytes ``[N, C, H, W]``, in [0, 1]."""
    shown = images[:: max(1, len(images) // (5 * STATISTICS_ROWS))].float() / 255.0
    return {"image_mean": shown.mean(dim=(0, 2, 3)).tolist(), "image_std": shown.std(dim=(0, 2, 3)).tolist()}


def assemble(info: DataInfo, made: Mapping[str, Split], reader: Reader) -> Splits:
    """`Splits` from splits by name."""
    return Splits(
        info=info,
        train=made["train"],
        val=made["val"],
        test=made["test"],
        unlabelled=made.get("unlabelled"),
        reader=reader,
    )


def counts(target: np.ndarray, classes: int) -> tuple[int, ...]:
    """Rows of each class, or with each tag."""
    if target.ndim == 2:
        return tuple(int(count) for count in target.sum(axis=0))
    return tuple(int(count) for count in np.bincount(target, minlength=classes))


def refuse_empty(sizes: Mapping[str, int], name: str) -> None:
    """Refuse a dataset with an empty split.

    Raises:
        DataError: with the split's name.
    """
    for split, size in sizes.items():
        if size == 0:
            raise DataError(
                f"split '{split}' of '{name}' is empty",
                where=f"dataset '{name}'",
                fix="check the split options and files",
            )
