"""Random augmentation of training batches. Teacher and student are given the same batch, so both see the same masks and
the same mixtures; all draws come from torch's global generator, which the training loop seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torchaudio
from torch import Tensor
from torchvision.transforms import v2

from stillhouse.errors import OptionError, nearest
from stillhouse.types import Batch, Split

AUDIO_KEYS = ("mixup", "time_mask", "freq_mask", "shift", "speed", "noise_db")
SPECTROGRAM_KEYS = ("mixup", "time_mask", "freq_mask")
IMAGE_KEYS = ("mixup", "crop", "flip", "rotate")

Transform = Callable[[Batch], Batch]


class Augmented(Split):
    """Another split whose batches are transformed at random. Single rows, `columns` and the fingerprint's content are
    those of the rows as they are.

    Args:
        rows: the other split.
        transform: from a batch to its random version.
        settings: JSON-ready description of the transform, part of the fingerprint.
    """

    stochastic = True

    def __init__(self, rows: Split, transform: Transform, settings: Mapping[str, Any]) -> None:
        self._rows, self._transform, self._settings = rows, transform, dict(settings)
        self.groups, self.times, self.until = rows.groups, rows.times, rows.until

    def __len__(self) -> int:
        return len(self._rows)

    def plain(self) -> Split:
        """See `Split.plain`."""
        return self._rows

    def row(self, position: int) -> dict[str, Tensor]:
        """The row as it is."""
        return self._rows.row(position)

    def batch(self, positions: Sequence[int]) -> Batch:
        """The rows at ``positions``, augmented."""
        return self._transform(self._rows.batch(positions))

    def index(self) -> Tensor:
        """See `Split.index`."""
        return self._rows.index()

    def columns(self, names: Sequence[str] | None = None) -> Batch:
        """All rows as they are."""
        return self._rows.columns(names)

    def fingerprint(self) -> str:
        """The rows' fingerprint and the settings."""
        settings = json.dumps(self._settings, sort_keys=True)
        return hashlib.sha256(f"{self._rows.fingerprint()}:{settings}".encode()).hexdigest()


def check_keys(augment: Mapping[str, float] | None, known: Sequence[str], *, dataset: str) -> dict[str, float]:
    """The settings that are not zero.

    Raises:
        OptionError: an unknown key (with the nearest), or a value out of range.
    """
    chosen: dict[str, float] = {}
    for key, value in (augment or {}).items():
        where = f"dataset '{dataset}', augment.{key}"
        if key not in known:
            raise OptionError(f"there is no augmentation '{key}' here", where=where, fix=nearest(key, known))
        top = {"time_mask": 0.9, "freq_mask": 0.9, "flip": 1.0, "speed": 0.5, "mixup": 100.0}.get(key, 1000.0)
        if not 0 <= value <= top:
            raise OptionError(f"{key} is {value}", where=where, fix=f"a number from 0 (off) to {top:g}")
        if value > 0:
            chosen[key] = float(value)
    return chosen


def mixup(entry: str, alpha: float, classes: int) -> Transform:
    """Mixup (Zhang et al. 2018): each row plus a share of another row, and its target likewise.

    One share per batch from Beta(alpha, alpha); classes ``[B]`` become shares ``[B, C]``. Rows without a target are
    mixed as well.

    Args:
        entry: input that is mixed.
        alpha: parameter of the Beta distribution.
        classes: number of classes, for one-hot targets.
    """
    beta = torch.distributions.Beta(alpha, alpha)

    def apply(batch: Batch) -> Batch:
        share = beta.sample()
        share = torch.maximum(share, 1 - share)  # the row itself stays the larger part
        other = torch.randperm(len(batch[entry]))
        mixed = dict(batch)
        mixed[entry] = share * batch[entry] + (1 - share) * batch[entry][other]
        if "target" in batch:
            target = batch["target"]
            if not target.is_floating_point():
                target = torch.nn.functional.one_hot(target, classes).float()
            mixed["target"] = share * target + (1 - share) * target[other]
        return mixed

    return apply


def masks(shape: tuple[int, int, int], time_mask: float, freq_mask: float) -> Tensor:
    """SpecAugment's masks (Park et al. 2019) for ``(rows, bands, frames)``: 0 where masked, else 1; one stripe of each
    kind a row, up to the given share of the axis wide (torchaudio)."""
    rows, bands, count = shape
    keep = torch.ones(rows, 1, bands, count)
    if freq_mask:
        keep = torchaudio.transforms.FrequencyMasking(max(1, round(freq_mask * bands)), iid_masks=True)(keep)
    if time_mask:
        keep = torchaudio.transforms.TimeMasking(max(1, round(time_mask * count)), iid_masks=True)(keep)
    return keep[:, 0]


def mask_waveform(waveform: Tensor, *, fft: int, hop: int, time_mask: float, freq_mask: float) -> Tensor:
    """``[B, T]`` with stripes of its spectrogram silenced; the rest is what it was."""
    window = torch.hann_window(fft)
    spectrum = torch.stft(waveform, fft, hop, window=window, return_complex=True)
    spectrum = spectrum * masks(tuple(spectrum.shape), time_mask, freq_mask)
    return torch.istft(spectrum, fft, hop, window=window, length=waveform.shape[-1])


def shift(waveform: Tensor, samples: int) -> Tensor:
    """``[B, T]``, each row moved by up to ``samples`` to either side, with silence behind it."""
    length = waveform.shape[-1]
    offset = torch.randint(-samples, samples + 1, (len(waveform), 1))
    source = torch.arange(length) + offset
    inside = (source >= 0) & (source < length)
    return torch.gather(waveform, 1, source.clamp(0, length - 1)) * inside


def speed(waveform: Tensor, rate: int, most: float, parts: int = 4) -> Tensor:
    """``[B, T]`` played slower, as it is, or faster by up to ``most``, pitch included; the factor is drawn for each of
    ``parts`` parts of the batch (torchaudio)."""
    factors = [1 - most, 1 - most / 2, 1.0, 1 + most / 2, 1 + most]
    perturb = torchaudio.transforms.SpeedPerturbation(rate, [round(factor, 2) for factor in factors])
    length = waveform.shape[-1]
    changed = []
    for part in waveform.chunk(parts):
        sound = perturb(part)[0]
        before = max(0, (length - sound.shape[-1]) // 2)
        sound = torch.nn.functional.pad(sound, (before, max(0, length - sound.shape[-1] - before)))
        start = (sound.shape[-1] - length) // 2
        changed.append(sound[:, start : start + length])
    return torch.cat(changed)


def audio_transform(
    settings: Mapping[str, float], *, log_mel: Mapping[str, int], mean: float, entry: str, classes: int
) -> Transform:
    """The augmentation of batches of sound.

    Args:
        settings: what `check_keys` returned: ``mixup`` (alpha), ``time_mask`` and ``freq_mask`` (largest share of the
            axis), ``shift`` (seconds), ``speed`` (largest relative change), ``noise_db`` (lowest signal-to-noise
            ratio).
        log_mel: settings of the spectrogram.
        mean: mean of the log-mel spectrograms, which fills masked stripes of cached ones.
        entry: ``waveform`` or ``spectrogram``.
        classes: number of classes or tags.
    """
    time_mask, freq_mask = settings.get("time_mask", 0.0), settings.get("freq_mask", 0.0)
    mixer = mixup(entry, settings["mixup"], classes) if "mixup" in settings else None

    def apply(batch: Batch) -> Batch:
        value = batch[entry]
        if "speed" in settings:
            value = speed(value, log_mel["rate"], settings["speed"])
        if "shift" in settings:
            value = shift(value, round(settings["shift"] * log_mel["rate"]))
        if "noise_db" in settings:
            ratio = torch.empty(len(value)).uniform_(settings["noise_db"], settings["noise_db"] + 30.0)
            value = torchaudio.functional.add_noise(value, torch.randn_like(value), ratio)
        batch = {**batch, entry: value}
        if mixer is not None:
            batch = mixer(batch)
        if time_mask or freq_mask:
            value = batch[entry]
            if entry == "spectrogram":
                keep = masks(tuple(value.shape), time_mask, freq_mask)
                value = value * keep + mean * (1 - keep)
            else:
                value = mask_waveform(
                    value, fft=log_mel["fft"], hop=log_mel["hop"], time_mask=time_mask, freq_mask=freq_mask
                )
            batch[entry] = value
        return batch

    return apply


def image_transform(settings: Mapping[str, float], *, size: tuple[int, int], classes: int) -> Transform:
    """The augmentation of batches of images ``[B, C, H, W]`` (torchvision), drawn for each row.

    Args:
        settings: what `check_keys` returned: ``mixup`` (alpha), ``crop`` (pixels of padding before a random crop),
            ``flip`` (probability of mirroring), ``rotate`` (degrees).
        size: height and width.
        classes: number of classes.
    """
    steps: list[Any] = []
    if "rotate" in settings:
        steps.append(v2.RandomRotation(settings["rotate"], interpolation=v2.InterpolationMode.BILINEAR))
    if "crop" in settings:
        steps.append(v2.RandomCrop(size, padding=max(1, round(settings["crop"]))))
    if "flip" in settings:
        steps.append(v2.RandomHorizontalFlip(settings["flip"]))
    change = v2.Compose(steps) if steps else None
    mixer = mixup("image", settings["mixup"], classes) if "mixup" in settings else None

    def apply(batch: Batch) -> Batch:
        if change is not None:
            batch = {**batch, "image": torch.stack([change(image) for image in batch["image"]])}
        return mixer(batch) if mixer is not None else batch

    return apply
