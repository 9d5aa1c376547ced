"""The recipe for acoustic scenes of one's own recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

import stillhouse


def test_scenes_of_ones_own_are_split_by_place(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = []
    for number in range(24):
        scene = ("street", "park")[number % 2]
        sound = random.normal(0, 0.1, 4000) + (number % 2) * 0.3 * np.sin(np.arange(4000) * 0.4)
        soundfile.write(tmp_path / f"{number}.wav", sound, 8000)
        rows.append({"file": f"{number}.wav", "scene": scene, "place": f"place {number // 2}"})
    pd.DataFrame(rows).to_csv(tmp_path / "scenes.csv", index=False)
    result = stillhouse.run(
        "audio_vision/scenes",
        out=tmp_path / "run",
        overrides=[
            f"dataset.path={tmp_path}",
            "dataset.rate=8000",
            "dataset.seconds=0.5",
            "dataset.mels=16",
            "teacher={use: audio_vision/cnn, width: 4, blocks: 2}",
            "student={use: audio_vision/mobile-cnn, width: 0.25}",
            "train.teacher={epochs: 1, batch_size: 8}",
            "train.student={epochs: 1, batch_size: 8}",
            "evaluate.latency_samples=5",
            "evaluate.throughput_batch=4",
        ],
        seeds=[0],
        stop_after="evaluate",
    )
    summary = result.summary
    assert sum(summary["dataset"]["rows"].values()) == 24
    assert all(count % 2 == 0 for count in summary["dataset"]["rows"].values())  # a place has two recordings
    assert "audio_vision/spectral-forest" in summary["controls"]
