"""Simulated sound scenes: events of eight kinds over background noise, each scene tagged with the kinds it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from stillhouse.errors import OptionError
from stillhouse.types import DataContext, Splits
from stillhouse_audio_vision.datasets.rows import audio_splits
from stillhouse_audio_vision.datasets.sounds import Clips, check_sound_options, unit_power

RATE = 8000

Event = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _tone(frequency: np.ndarray | float, time: np.ndarray) -> np.ndarray:
    """A sine whose frequency may change over time."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(frequency, time.shape)) / RATE)


def _hum(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    base = random.uniform(90, 180)
    return sum(_tone(base * number, time) / number for number in (1, 2, 3))


def _siren(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    middle, depth, rate = random.uniform(700, 1200), random.uniform(0.2, 0.4), random.uniform(2, 5)
    return _tone(middle * (1 + depth * np.sin(2 * np.pi * rate * time)), time)


def _chirp(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    low, high = random.uniform(1500, 2200), random.uniform(2600, 3500)
    share = (time * random.uniform(4, 8)) % 1.0
    return _tone(low + (high - low) * share, time) * np.sin(np.pi * share)


def _bell(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    base = random.uniform(500, 900)
    return sum(_tone(base * ratio, time) * np.exp(-time * decay) for ratio, decay in ((1, 5), (2.76, 8), (3.9, 12)))


def _clicks(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    phase = (time * random.uniform(8, 16)) % 1.0
    return random.normal(size=time.shape) * np.exp(-phase * random.uniform(20, 40))


def _hiss(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    return np.diff(random.normal(size=len(time) + 1))


def _rumble(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    width = int(random.integers(20, 40))
    return np.convolve(random.normal(size=len(time) + width - 1), np.hanning(width), mode="valid")


def _buzz(random: np.random.Generator, time: np.ndarray) -> np.ndarray:
    return np.sign(_tone(random.uniform(220, 420), time)) * (1 + 0.5 * _tone(random.uniform(20, 40), time))


EVENTS: dict[str, Event] = {
    "bell": _bell,
    "buzz": _buzz,
    "chirp": _chirp,
    "clicks": _clicks,
    "hiss": _hiss,
    "hum": _hum,
    "rumble": _rumble,
    "siren": _siren,
}


def scenes_sim(
    context: DataContext,
    *,
    rows: int = 1200,
    most_events: int = 3,
    snr_db: float = 0.0,
    seconds: float = 1.0,
    mels: int = 32,
    hop_ms: float = 16.0,
    input: Literal["waveform", "spectrogram"] = "waveform",
    augment: dict[str, float] | None = None,
) -> Splits:
    """Scenes with up to a few events at random places and levels, over coloured noise.

    Args:
        context: the seed.
        rows: training scenes, with half as many each for validation and test.
        most_events: largest number of events in a scene; each scene has at least one.
        snr_db: level of an event of average loudness over the noise.
        seconds: length of a scene.
        mels: bands of the spectrogram.
        hop_ms: milliseconds between its frames.
        input: rows hold waveforms, or spectrograms computed once.
        augment: random changes of training rows: mixup (alpha), time_mask and freq_mask (largest share), shift
            (seconds), speed (largest relative change), noise_db (lowest signal-to-noise ratio).

    Raises:
        OptionError: an option is out of range.
    """
    check_sound_options(seconds=seconds, rate=RATE, mels=mels, hop_ms=hop_ms)
    if rows < 40 or not 1 <= most_events <= len(EVENTS):
        raise OptionError(
            f"rows is {rows} and most_events {most_events}",
            where="dataset 'scenes-sim'",
            fix=f"at least 40 rows, and 1 to {len(EVENTS)} events",
        )
    random = np.random.default_rng(context.seed)
    parts, first = {}, 0
    for split, count in (("train", rows), ("val", rows // 2), ("test", rows // 2)):
        made = [scene(random, round(seconds * RATE), most_events, snr_db) for _ in range(count)]
        parts[split] = Clips(
            [sound for sound, _ in made], np.stack([tags for _, tags in made]), np.arange(first, first + count)
        )
        first += count
    return audio_splits(
        parts,
        name="scenes-sim",
        classes=tuple(EVENTS),
        rate=RATE,
        seconds=seconds,
        mels=mels,
        hop_ms=hop_ms,
        entry=input,
        augment=augment,
        description=f"Simulated sound scenes with up to {most_events} of {len(EVENTS)} kinds of events over noise",
        simulated=True,
    )


def scene(random: np.random.Generator, length: int, most_events: int, snr_db: float) -> tuple[np.ndarray, np.ndarray]:
    """One scene ``[length]`` and its tags ``[L]``, both float32."""
    names = list(EVENTS)
    colour = random.uniform(0, 0.9)
    noise = random.normal(size=length)
    sound = unit_power(noise + colour * np.roll(noise, 1))
    tags = np.zeros(len(names), np.float32)
    for kind in random.choice(len(names), int(random.integers(1, most_events + 1)), replace=False):
        size = int(random.uniform(0.25, 0.7) * length)
        event = unit_power(EVENTS[names[kind]](random, np.arange(size) / RATE)) * np.hanning(size) ** 0.25
        start = int(random.integers(0, length - size + 1))
        level = 10 ** ((snr_db + random.uniform(-8, 8)) / 20)
        sound[start : start + size] += level * event
        tags[kind] = 1.0
    return (0.05 * sound).astype(np.float32), tags
