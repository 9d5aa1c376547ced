"""A simple synthesiser of spoken digits: a voice's harmonics shaped by vowel formants, with noise where a digit
hisses."""

from __future__ import annotations

import numpy as np

from stillhouse_audio_vision.datasets.sounds import Clips

RATE = 8000
FORMANTS = {
    "a": (730, 1090),
    "e": (530, 1840),
    "i": (270, 2290),
    "o": (570, 840),
    "u": (300, 870),
    "r": (490, 1350),
    "n": (250, 1500),
}
"""First two formants in Hz of an average voice (after Peterson and Barney 1952)."""
DIGITS: tuple[tuple[str, ...], ...] = (
    ("s", "i", "r", "o"),
    ("u", "a", "n"),
    ("t", "u"),
    ("s", "r", "i"),
    ("s", "o", "r"),
    ("s", "a", "i"),
    ("s", "i", "t", "s"),
    ("s", "e", "e", "n"),
    ("e", "i", "t"),
    ("n", "a", "i", "n"),
)
"""Sounds of each digit: vowels, nasals, ``s`` for hissing and ``t`` for a stop."""
VOICES = ("one", "two", "three", "four", "five", "six")


def spoken_digits(seed: int, *, each: int = 50) -> tuple[Clips, np.ndarray]:
    """``each`` recordings of every digit by six voices, and the voice of each recording."""
    random = np.random.default_rng(seed)
    sounds, digits, voices = [], [], []
    for voice in VOICES:
        pitch, tract = random.uniform(90, 240), random.uniform(0.85, 1.2)
        for digit, units in enumerate(DIGITS):
            for _ in range(each):
                sounds.append(_speak(units, pitch, tract, random))
                digits.append(digit)
                voices.append(voice)
    return Clips(sounds, np.array(digits, dtype=np.int64), np.arange(len(sounds)), voices), np.array(voices)


def _speak(units: tuple[str, ...], pitch: float, tract: float, random: np.random.Generator) -> np.ndarray:
    pitch, tract = pitch * random.uniform(0.9, 1.1), tract * random.uniform(0.95, 1.05)
    parts = []
    for unit in units:
        time = np.arange(int(random.uniform(0.07, 0.14) * RATE)) / RATE
        if unit == "s":
            part = 0.4 * np.diff(random.normal(size=len(time) + 1))
        elif unit == "t":
            part = random.normal(size=len(time)) * np.exp(-60 * time)
        else:
            part = np.zeros(len(time))
            for number in range(1, int(RATE / 2 / pitch)):
                frequency = pitch * number
                gain = sum(
                    np.exp(-(((frequency - tract * formant) / 140) ** 2)) * weight
                    for formant, weight in zip(FORMANTS[unit], (1.0, 0.6), strict=True)
                )
                part += (gain + 0.02) * np.sin(2 * np.pi * frequency * time + random.uniform(0, 2 * np.pi))
        parts.append(part * np.hanning(len(time)) ** 0.3)
    sound = np.concatenate(parts)
    return (0.1 * (sound + 0.1 * random.normal(size=len(sound)))).astype(np.float32)
