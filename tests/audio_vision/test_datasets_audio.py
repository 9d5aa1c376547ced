"""FSDD, ESC-50, the user's sound files and simulated scenes: protocols, layouts, refusals."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from stillhouse.errors import DataError, LeakageError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.pipeline.data import check_splits, check_targets, fingerprint
from stillhouse_audio_vision.datasets.audio_folder import audio_folder
from stillhouse_audio_vision.datasets.esc50 import esc50
from stillhouse_audio_vision.datasets.fsdd import fsdd
from stillhouse_audio_vision.datasets.reader import AudioReader
from stillhouse_audio_vision.datasets.scenes import EVENTS, scenes_sim
from stillhouse_audio_vision.datasets.sounds import Clips, fixed, mix, read_sound
from stillhouse_audio_vision.heads import Classification, Tagging

SMALL = {"seconds": 0.2, "mels": 8}
SPEAKERS = {"test_speakers": ("cat", "dan"), "val_speakers": ("bob",)}


def checked(splits, *, tags: bool = False):
    """The splits, after the guard rails of a run."""
    check_splits(splits, name="test")
    head = Tagging(splits.info) if tags else Classification(splits.info)
    check_targets(splits, head, name="test")
    assert head.kind is (OutputKind.MULTILABEL if tags else OutputKind.MULTICLASS)
    return splits


def sizes(splits) -> tuple[int, int, int]:
    return tuple(len(split) for split in splits.named().values())


def test_speakers_are_held_out_whole(context, fsdd_files):
    splits = checked(fsdd(replace(context(), root=fsdd_files), **SPEAKERS, **SMALL))
    assert sizes(splits) == (120, 120, 240)
    assert set(splits.train.groups) == {"ann"}
    assert set(splits.val.groups) == {"bob"}
    assert set(splits.test.groups) == {"cat", "dan"}
    assert splits.info.class_counts == (12,) * 10
    assert splits.info.inputs["waveform"].shape == (1600,)
    assert splits.test.columns(["target"])["target"].bincount().tolist() == [24] * 10


def test_the_official_split_tests_recordings_0_to_4(context, fsdd_files):
    splits = checked(fsdd(replace(context(), root=fsdd_files), protocol="official", **SMALL))
    assert sizes(splits) == (80, 200, 200)
    assert splits.train.groups is None
    assert set((splits.test.index() % 1000).tolist()) == set(range(5))
    assert set((splits.val.index() % 1000).tolist()) == set(range(5, 10))


def test_rows_hold_the_recording_of_their_digit(context, fsdd_files):
    splits = fsdd(replace(context(), root=fsdd_files), **SPEAKERS, **SMALL)
    row = splits.train.row(3)  # of one speaker, recordings in order of their names
    samples, rate = soundfile.read(fsdd_files / "recordings" / "0_ann_11.wav", dtype="float32")
    assert rate == 8000
    assert int(row["target"]) == 0
    np.testing.assert_array_equal(row["waveform"].numpy(), fixed(samples, 1600))


def test_mixtures_carry_two_tags_and_speakers_of_their_split(context, fsdd_files):
    options = {**SPEAKERS, **SMALL, "mixtures": 40}
    splits = checked(fsdd(replace(context(), root=fsdd_files), **options), tags=True)
    assert sizes(splits) == (40, 10, 10)
    for split in splits.named().values():
        assert (split.columns(["target"])["target"].sum(dim=1) == 2).all()
    assert {name for pair in splits.test.groups for name in pair.split("+")} <= {"cat", "dan"}
    again = fsdd(replace(context(), root=fsdd_files), **options)
    other = fsdd(replace(context(seed=1), root=fsdd_files), **options)
    assert fingerprint(splits) == fingerprint(again) != fingerprint(other)


def test_a_mixture_is_the_sum_of_its_parts():
    clips = Clips(
        [np.full(4, 1.0, np.float32), np.array([1.0, -1.0, 1.0, -1.0], np.float32)], np.array([0, 2]), np.arange(2)
    )
    random = np.random.default_rng(0)
    made = mix(clips, rows=5, classes=3, length=4, parts=2, first_index=7, random=random)
    assert made.index.tolist() == [7, 8, 9, 10, 11]
    assert (made.target == [1.0, 0.0, 1.0]).all()
    for sound in made.sounds:
        constant, alternating = np.mean(sound), np.mean(sound * [1, -1, 1, -1])
        np.testing.assert_allclose(sound, constant + alternating * np.array([1, -1, 1, -1]), atol=1e-6)
        assert abs(20 * np.log10(constant / alternating)) <= 10.0
    with pytest.raises(DataError, match="as many classes"):
        mix(clips.take(np.array([0])), rows=1, classes=3, length=4, parts=2, first_index=0, random=random)


def test_cached_spectrograms_replace_waveforms(context, fsdd_files):
    splits = checked(fsdd(replace(context(), root=fsdd_files), input="spectrogram", **SPEAKERS, **SMALL))
    assert list(splits.info.inputs) == ["spectrogram"]
    assert splits.info.inputs["spectrogram"].shape == (8, 13)
    values = splits.train.columns(["spectrogram"])["spectrogram"]
    assert float(values.mean()) == pytest.approx(splits.info.meta["log_mel_mean"], abs=1e-3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"test_speakers": ("cta",)}, DataError, "no speaker 'cta'"),
        ({"test_speakers": ("bob",)}, DataError, "named for validation and test"),
        ({"test_speakers": ("ann", "cat", "dan")}, DataError, "left for training"),
        ({"test_speakers": ()}, OptionError, "is empty"),
        ({"seconds": 0.0}, OptionError, "seconds is 0"),
        ({"seconds": 0.01}, OptionError, "seconds is 0.01"),
        ({"mels": 1}, OptionError, "mels is 1"),
        ({"augment": {"mixpu": 0.1}}, OptionError, "no augmentation 'mixpu'"),
        ({"augment": {"time_mask": 2.0}}, OptionError, "time_mask is 2"),
        ({"augment": {"shift": 0.1}, "input": "spectrogram"}, OptionError, "no augmentation 'shift'"),
    ],
)
def test_fsdd_refuses_wrong_options(context, fsdd_files, options, error, message):
    with pytest.raises(error, match=message):
        fsdd(replace(context(), root=fsdd_files), **{**SPEAKERS, **SMALL, **options})


def test_fsdd_refuses_missing_misnamed_and_broken_files(context, files, tmp_path):
    with pytest.raises(DataError, match="is not there") as caught:
        fsdd(context("nothing"))
    assert "github.com/Jakobovski" in caught.value.fix
    root = files.fsdd(tmp_path / "fsdd", each=1)
    first = root / "recordings" / "0_ann_0.wav"
    whole = first.read_bytes()
    for content, message in (
        (whole[:-400], "of the 800 samples"),
        (whole[:30], "cannot be read|samples"),
        (b"not a sound", "cannot be read"),
        (b"", "cannot be read"),
    ):
        first.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            fsdd(context("fsdd"), **SPEAKERS, **SMALL)
        assert "0_ann_0.wav" in caught.value.where
    first.write_bytes(whole)
    for name, message in (("noise.wav", "is not named"), ("11_ann_0.wav", "'11' is not a digit")):
        shutil.copy(first, root / "recordings" / name)
        with pytest.raises(DataError, match=message):
            fsdd(context("fsdd"), **SPEAKERS, **SMALL)
        (root / "recordings" / name).unlink()


def test_the_sets_of_a_run_on_the_real_recordings(context, data_folder):
    root = data_folder / "audio_vision" / "fsdd"
    if not root.is_dir():
        pytest.skip("no FSDD in STILLHOUSE_DATA")
    splits = checked(fsdd(replace(context(), root=root)))
    assert sizes(splits) == (1500, 500, 1000)
    assert splits.info.class_counts == (150,) * 10
    official = checked(fsdd(replace(context(), root=root), protocol="official"))
    assert sizes(official) == (2400, 300, 300)


def test_esc50_keeps_its_folds_and_sources(context, esc_files):
    splits = checked(esc50(replace(context(), root=esc_files), rate=8000, seconds=0.4, mels=8))
    assert sizes(splits) == (24, 8, 8)
    assert splits.info.classes == ("dog", "rooster", "rain", "airplane")
    assert {source[0] for source in splits.test.groups} == {"5"}
    assert {source[0] for source in splits.val.groups} == {"4"}
    assert splits.info.inputs["waveform"].shape == (3200,)  # resampled from 4 kHz


def test_esc10_is_a_subset_and_mixtures_are_tags(context, esc_files):
    here = replace(context(), root=esc_files)
    ten = checked(esc50(here, esc10=True, test_fold=1, val_fold=2, rate=4000, seconds=0.4, mels=8))
    assert ten.info.classes == ("dog", "rooster", "rain")
    assert sizes(ten) == (18, 6, 6)
    assert {source[0] for source in ten.test.groups} == {"1"}
    mixtures = checked(esc50(here, mixtures=20, parts=3, rate=4000, seconds=0.4, mels=8), tags=True)
    assert sizes(mixtures) == (20, 5, 5)
    assert (mixtures.train.columns(["target"])["target"].sum(dim=1) == 3).all()


def edited(root, old: str, new: str) -> None:
    path = root / "meta" / "esc50.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1-1000-A-0.wav,1,0", "1-1000-A-0.wav,6,0", "row 2, column 'fold': '6' is not"),
        ("1-1000-A-0.wav,1,0", "1-1000-A-0.wav,1,50", "row 2, column 'target': '50' is not"),
        ("1-1000-A-0.wav,1,0,dog", "1-1000-A-0.wav,1,0,cow", "do not belong to each other alone"),
        ("1-1000-A-0.wav,1,0,dog,True", "1-1000-A-0.wav,1,0,dog,maybe", "esc10 is 'maybe'"),
        ("1-1000-A-0.wav", "gone.wav", "does not exist"),
        ("src_file", "source", "no column 'src_file'"),
    ],
)
def test_esc50_refuses_a_wrong_table(context, files, tmp_path, old, new, message):
    edited(files.esc50(tmp_path / "esc50"), old, new)
    with pytest.raises(DataError, match=message):
        esc50(context("esc50"), rate=4000, seconds=0.4, mels=8)


def test_esc50_tells_a_source_in_two_folds_and_missing_files(context, files, tmp_path):
    with pytest.raises(DataError, match="is not there"):
        esc50(context("nothing"))
    edited(files.esc50(tmp_path / "esc50"), "1-1000-A-0.wav,1,0,dog,True,1000", "1-1000-A-0.wav,1,0,dog,True,5000")
    with pytest.raises(LeakageError, match="group '5000'"):
        check_splits(esc50(context("esc50"), rate=4000, seconds=0.4, mels=8), name="esc50")
    with pytest.raises(OptionError, match="test_fold is 4"):
        esc50(context("esc50"), test_fold=4, val_fold=4)


def own_files(files, root, rows: list[str], header: str = "file,tags,split,place") -> None:
    root.mkdir()
    for number, row in enumerate(rows):
        soundfile.write(root / row.split(",")[0], files.tone(200 + 50 * number, 0.3, 16000), 16000)
    (root / "tags.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


ROWS = [
    f"{number}.wav,{tags},{split},p{number % 3 if split == 'train' else split}"
    for number, (tags, split) in enumerate(
        [("fan;pump", "train"), ("fan", "train"), ("", "train"), ("pump", "val"), ("fan;pump", "test"), ("fan", "test")]
    )
]
OWN = {"seconds": 0.3, "mels": 8, "rate": 16000}


def test_own_files_with_a_split_column(context, files, tmp_path):
    own_files(files, tmp_path / "own", ROWS)
    splits = checked(audio_folder(context(), path="own", split="split", group="place", **OWN), tags=True)
    assert splits.info.classes == ("fan", "pump")
    assert splits.train.columns(["target"])["target"].tolist() == [[1, 1], [1, 0], [0, 0]]
    assert sizes(splits) == (3, 1, 2)


def test_own_files_are_split_at_random_by_group_or_class(context, files, tmp_path):
    rows = [f"{number}.wav,{'ab'[number % 2]},x,g{number // 2}" for number in range(20)]
    own_files(files, tmp_path / "own", rows)
    single = checked(audio_folder(context(), path="own", task="classification", **OWN))
    assert sizes(single) == (12, 4, 4)
    assert single.test.columns(["target"])["target"].bincount().tolist() == [2, 2]
    grouped = checked(audio_folder(context(), path="own", group="place", **OWN), tags=True)
    assert sizes(grouped) == (12, 4, 4)
    assert not set(grouped.test.groups) & set(grouped.train.groups)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("0.wav,fan;pump", "0.wav,fan;bell"), {"classes": ("fan", "pump")}, "row 2: 'bell' is not among"),
        (("0.wav,fan;pump", "7.wav,fan;pump"), {}, "row 2, column 'file': '7.wav' is not a file in"),
        # Longer than a file system takes names: the operating system's error was shown as a defect.
        (("1.wav,fan", f"{'a' * 300}.wav,fan"), {}, r"row 3, column 'file': 'a{77}\.\.\.' is not a file in"),
        (("0.wav,fan;pump", "1.wav,fan;pump"), {}, "row 3: '1.wav' is in the table twice"),
        (("0.wav,fan;pump,train", "0.wav,fan;pump,tarin"), {"split": "split"}, "row 2: split is 'tarin'"),
        (("file,tags", "name,tags"), {}, "no column 'file'"),
        (("3.wav,pump,val", "3.wav,pump,test"), {"split": "split"}, "split 'val' of 'audio-folder' is empty"),
        (("", ""), {"task": "classification"}, "row 2 has 2 classes"),
        (("", ""), {"group": "palce"}, "no column 'palce'"),
    ],
)
def test_own_files_that_cannot_be_used_are_refused(context, files, tmp_path, change, options, message):
    own_files(files, tmp_path / "own", ROWS)
    table = tmp_path / "own" / "tags.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(*change, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        audio_folder(context(), path="own", **OWN, **options)


def test_a_group_in_two_splits_is_told(context, files, tmp_path):
    own_files(files, tmp_path / "own", [row.replace("ptest", "p1") for row in ROWS])
    with pytest.raises(LeakageError, match="group 'p1'"):
        check_splits(audio_folder(context(), path="own", split="split", group="place", **OWN), name="own")


def test_scenes_are_seeded_tagged_and_say_that_they_are_simulated(context):
    splits = checked(scenes_sim(context(), rows=60), tags=True)
    assert sizes(splits) == (60, 30, 30)
    assert splits.info.classes == tuple(EVENTS)
    assert splits.info.simulated
    tags = splits.train.columns(["target"])["target"].sum(dim=1)
    assert (tags.min(), tags.max()) == (1, 3)
    assert fingerprint(scenes_sim(context(), rows=60)) == fingerprint(splits)
    assert fingerprint(scenes_sim(context(seed=1), rows=60)) != fingerprint(splits)
    with pytest.raises(OptionError, match="most_events 9"):
        scenes_sim(context(), rows=60, most_events=9)


def test_sounds_become_one_channel_at_one_rate(tmp_path, files):
    left, right = files.tone(300, 0.5, 16000), files.tone(300, 0.5, 16000, seed=1)
    soundfile.write(tmp_path / "stereo.flac", np.stack([left, right], axis=1), 16000)
    sound = read_sound(tmp_path / "stereo.flac", 8000)
    assert sound.shape == (4000,)
    peak = np.fft.rfftfreq(4000, 1 / 8000)[np.argmax(np.abs(np.fft.rfft(sound)))]
    assert peak == pytest.approx(300, abs=2)


def test_fixed_keeps_the_middle():
    assert fixed(np.arange(5.0), 3).tolist() == [1, 2, 3]
    assert fixed(np.array([1.0, 2.0]), 5).tolist() == [0, 1, 2, 0, 0]


@pytest.mark.parametrize("entry", ["waveform", "spectrogram"])
def test_the_reader_gives_new_files_as_training_saw_them(context, fsdd_files, entry):
    splits = fsdd(replace(context(), root=fsdd_files), input=entry, **SPEAKERS, **SMALL)
    reader = AudioReader.from_state(splits.reader.state())
    rows, identity = reader.read(fsdd_files / "recordings" / "0_ann_0.wav")
    assert identity == {"file": ["0_ann_0.wav"], "seconds": [0.1]}
    torch.testing.assert_close(rows.columns([entry])[entry][0], splits.train.row(0)[entry], atol=1e-4, rtol=1e-4)
    rows, identity = reader.read(fsdd_files / "recordings")
    assert len(rows) == len(identity["file"]) == 480


def test_the_reader_refuses_what_is_not_there(tmp_path):
    reader = AudioReader(seconds=0.1, entry="waveform", rate=8000, fft=256, hop=100, mels=8)
    (tmp_path / "empty").mkdir()
    (tmp_path / "new.csv").write_text("file\n")
    wrong = (("gone.wav", "does not exist"), ("empty", "has no sound files"), ("new.csv", "is no sound file"))
    for path, message in wrong:
        with pytest.raises(DataError, match=message):
            reader.read(tmp_path / path)


def test_the_reader_goes_into_folders_as_training_rows_lie(tmp_path):
    for name in ("fan/b.wav", "fan/a.wav", "pump/a.wav", "pump/.hidden.wav", "c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(80), 8000)
    reader = AudioReader(seconds=0.1, entry="waveform", rate=8000, fft=256, hop=100, mels=8)
    rows, identity = reader.read(tmp_path)
    assert identity["file"] == ["c.wav", "fan/a.wav", "fan/b.wav", "pump/a.wav"]
    assert len(rows) == 4
