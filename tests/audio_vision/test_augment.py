"""Random augmentation: replayed for teacher and student, seeded, and confined to training batches."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import distill
from stillhouse.objectives.prediction import BernoulliKL
from stillhouse.pipeline.data import check_splits
from stillhouse.training.rows import batches
from stillhouse.types import TensorSplit
from stillhouse_audio_vision.datasets.augment import (
    Augmented,
    audio_transform,
    image_transform,
    mask_waveform,
    masks,
    mixup,
    shift,
    speed,
)
from stillhouse_audio_vision.datasets.images import digits
from stillhouse_audio_vision.datasets.scenes import scenes_sim

LOG_MEL = {"rate": 8000, "fft": 256, "hop": 100, "mels": 8}


def rows(count: int = 6) -> TensorSplit:
    return TensorSplit({"waveform": torch.randn(count, 1000), "target": torch.arange(count) % 3})


@given(alpha=st.floats(0.05, 5.0), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_mixup_mixes_inputs_and_targets_by_the_same_share(alpha, seed):
    torch.manual_seed(seed)
    batch = {"waveform": torch.eye(6, dtype=torch.float64), "target": torch.arange(6), "index": torch.arange(6)}
    mixed = mixup("waveform", alpha, 6)(batch)
    # With one row a class, the mixture's weights can be read off input and target alike.
    torch.testing.assert_close(mixed["waveform"].float(), mixed["target"], atol=1e-6, rtol=0)
    torch.testing.assert_close(mixed["target"].sum(dim=1), torch.ones(6))
    assert (mixed["target"].diagonal() >= 0.5 - 1e-6).all()
    assert (mixed["index"] == batch["index"]).all()


def test_mixup_mixes_tags_and_rows_without_labels():
    torch.manual_seed(0)
    tags = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    mixed = mixup("waveform", 1.0, 2)({"waveform": tags.clone(), "target": tags})
    torch.testing.assert_close(mixed["waveform"], mixed["target"])
    assert set(mixup("waveform", 1.0, 2)({"waveform": tags})) == {"waveform"}


def test_masks_are_one_stripe_of_each_kind_up_to_their_share():
    torch.manual_seed(0)
    keep = masks((200, 20, 50), 0.2, 0.3)
    assert set(keep.unique().tolist()) == {0.0, 1.0}
    bands, frames = (keep == 0).all(dim=2).sum(dim=1), (keep == 0).all(dim=1).sum(dim=1)
    assert bands.max() <= 6
    assert frames.max() <= 10
    assert len(bands.unique()) > 3  # drawn for each row
    assert len(frames.unique()) > 3


def test_an_unmasked_waveform_stays_what_it_was_and_a_masked_one_loses_power():
    waveform = torch.randn(4, 1000)
    same = mask_waveform(waveform, fft=256, hop=100, time_mask=0.0, freq_mask=0.0)
    torch.testing.assert_close(same, waveform, atol=1e-5, rtol=1e-4)
    torch.manual_seed(0)
    masked = mask_waveform(waveform, fft=256, hop=100, time_mask=0.5, freq_mask=0.5)
    assert masked.shape == waveform.shape
    assert (masked.square().sum(dim=1) < waveform.square().sum(dim=1)).all()


def test_shift_moves_rows_and_leaves_silence_behind():
    torch.manual_seed(0)
    waveform = torch.arange(1.0, 9.0).repeat(50, 1)
    moved = shift(waveform, 3)
    for row in moved:
        inside = row[row != 0]
        assert len(inside) >= 5
        assert (inside.diff() == 1).all()
    assert len({tuple(row.tolist()) for row in moved}) > 3


def test_speed_changes_pitch_within_its_range():
    time = torch.arange(4000) / 8000
    waveform = torch.sin(2 * torch.pi * 500 * time).repeat(40, 1)
    torch.manual_seed(0)
    peaks = torch.fft.rfft(speed(waveform, 8000, 0.2, parts=20)).abs().argmax(dim=1) * 2
    assert peaks.min() >= 395
    assert peaks.max() <= 630
    assert len(peaks.unique()) >= 3


def test_noise_has_the_asked_level():
    torch.manual_seed(0)
    change = audio_transform({"noise_db": 10.0}, log_mel=LOG_MEL, mean=0.0, entry="waveform", classes=3)
    clean = rows(200).columns()
    noise = change(clean)["waveform"] - clean["waveform"]
    ratio = 10 * torch.log10(clean["waveform"].square().sum(dim=1) / noise.square().sum(dim=1))
    assert ratio.min() >= 9.5
    assert ratio.max() <= 40.5


def test_masked_spectrograms_are_filled_with_the_mean():
    torch.manual_seed(0)
    change = audio_transform({"time_mask": 0.5}, log_mel=LOG_MEL, mean=-7.0, entry="spectrogram", classes=3)
    batch = {"spectrogram": torch.rand(20, 8, 30), "target": torch.zeros(20, dtype=torch.int64)}
    filled = change(batch)["spectrogram"]
    assert set(filled[filled != batch["spectrogram"]].unique().tolist()) == {-7.0}
    assert (filled == batch["spectrogram"]).any()


def test_a_batch_is_a_function_of_torchs_generator():
    change = audio_transform(
        {"mixup": 0.4, "time_mask": 0.2, "freq_mask": 0.2, "shift": 0.01, "speed": 0.1, "noise_db": 20.0},
        log_mel=LOG_MEL,
        mean=0.0,
        entry="waveform",
        classes=3,
    )
    split = Augmented(rows(), change, {})
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(split.batch([0, 1, 2])["waveform"])
    torch.testing.assert_close(drawn[0], drawn[1], atol=0, rtol=0)
    assert not torch.equal(drawn[0], drawn[2])


def test_only_batches_are_augmented_and_the_settings_count_as_content():
    plain = rows()
    split = Augmented(plain, mixup("waveform", 1.0, 3), {"mixup": 1.0})
    assert split.stochastic
    assert len(split) == 6
    torch.testing.assert_close(split.columns(), plain.columns())
    torch.testing.assert_close(split.row(2), plain.row(2))
    assert split.columns(["target"])["target"].dtype == torch.int64
    assert (split.index() == plain.index()).all()
    other = Augmented(plain, mixup("waveform", 2.0, 3), {"mixup": 2.0})
    assert len({plain.fingerprint(), split.fingerprint(), other.fingerprint()}) == 3


def test_validation_and_test_rows_stay_as_they_are(context):
    plain, augmented = (
        scenes_sim(context(), rows=60, augment=augment) for augment in (None, {"mixup": 0.4, "time_mask": 0.2})
    )
    assert augmented.train.stochastic
    check_splits(augmented, name="scenes")
    for name in ("val", "test"):
        assert not augmented.named()[name].stochastic
        assert augmented.named()[name].fingerprint() == plain.named()[name].fingerprint()


def test_images_are_cropped_mirrored_and_rotated_row_by_row(context):
    splits = digits(context(), augment={"crop": 1, "flip": 0.5, "rotate": 10, "mixup": 0.2})
    torch.manual_seed(0)
    batch = splits.train.batch([0] * 8)
    assert batch["image"].shape == (8, 1, 8, 8)
    assert batch["target"].shape == (8, 10)
    assert len({tuple(image.flatten().tolist()) for image in batch["image"]}) > 4
    mirrored = image_transform({"flip": 1.0}, size=(8, 8), classes=10)
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(mirrored({"image": image})["image"], image.flip(-1))


class Ear(torch.nn.Module):
    """A linear model that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.output = torch.nn.Linear(8000, 8)
        self.heard: list[torch.Tensor] = []

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        self.heard.append(waveform.clone())
        return self.output(waveform)


def test_teacher_and_student_hear_the_same_mixtures_and_masks(context):
    splits = scenes_sim(context(), rows=60, augment={"mixup": 0.4, "time_mask": 0.2, "speed": 0.1})
    teacher, student = Ear(), Ear()
    steps = [[0, 1, 2], [0, 1, 2]]
    terms = [BernoulliKL(temperature=1.0)]
    distill(student, teacher, batches(splits.train, steps, workers=0), terms, alpha=0, inputs=["waveform"])
    assert len(student.heard) == len(teacher.heard) == len(steps)
    for of_teacher, of_student in zip(teacher.heard, student.heard, strict=True):
        assert torch.equal(of_teacher, of_student)
    assert not torch.equal(student.heard[0], student.heard[1])  # drawn anew for each step
    assert not torch.equal(student.heard[0], splits.train.columns(["waveform"])["waveform"][:3])
