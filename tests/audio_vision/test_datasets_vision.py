"""Digits, CIFAR, the user's images and cross-modal pairs: layouts, splits, refusals."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from stillhouse.errors import DataError, OptionError, StillhouseError
from stillhouse.pipeline.data import check_splits, check_targets
from stillhouse.pipeline.leakage import copied_rows
from stillhouse_audio_vision.datasets.crossmodal import digits_crossmodal
from stillhouse_audio_vision.datasets.images import cifar10, cifar100, digit_images, digits, image_folder
from stillhouse_audio_vision.datasets.reader import ImageReader
from stillhouse_audio_vision.heads import Classification


def checked(splits):
    check_splits(splits, name="test")
    check_targets(splits, Classification(splits.info), name="test")
    return splits


def sizes(splits) -> tuple[int, ...]:
    return tuple(len(split) for split in splits.named().values())


def test_digits_are_real_disjoint_and_balanced(context):
    splits = checked(digits(context()))
    assert sum(sizes(splits)) == 1797
    assert 0.38 < len(splits.test) / 1797 < 0.42
    images = splits.train.columns(["image"])["image"]
    assert images.shape[1:] == (1, 8, 8)
    assert (float(images.min()), float(images.max())) == (0.0, 1.0)
    assert min(splits.info.class_counts) > 0.9 * max(splits.info.class_counts)
    assert splits.info.meta["image_mean"][0] == pytest.approx(float(images.mean()), abs=1e-6)
    assert copied_rows(splits) == []
    assert splits.test.fingerprint() != digits(context(seed=1)).test.fingerprint()
    for wrong in ({"val_fraction": 0.0}, {"val_fraction": 0.6}, {"test_fraction": 1.0}):
        with pytest.raises(StillhouseError, match=r"test: |split 'val' of 'digits' is empty"):
            digits(context(), **wrong)


def test_digits_without_a_label_keep_none_and_are_augmented_too(context):
    everything = digits(context())
    splits = checked(digits(context(), labelled=0.06, augment={"rotate": 10}))
    assert len(splits.train) == 40
    assert splits.info.class_counts == (4,) * 10
    assert "target" not in splits.unlabelled.row(0)
    assert splits.unlabelled.stochastic
    drawn = torch.cat([splits.train.index(), splits.unlabelled.index()]).sort().values
    assert torch.equal(drawn, everything.train.index())
    assert splits.test.fingerprint() == everything.test.fingerprint()
    for wrong in (0.0, 1.5):
        with pytest.raises(OptionError, match="labelled is"):
            digits(context(), labelled=wrong)


def write_cifar(root, source, monkeypatch, *, per_file: int, classes: int, coarse: bool = False) -> None:
    """The official layout with random pixels; the pinned checksums become those of these files."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(seed: int) -> dict:
        labels = [(number + seed) % classes for number in range(per_file)]
        pixels = random.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        return {"data": pixels, "fine_labels" if coarse else "labels": labels}

    monkeypatch.setattr(
        source, "train_list", [write(name, batch(at)) for at, (name, _) in enumerate(source.train_list)]
    )
    monkeypatch.setattr(source, "test_list", [write(name, batch(9)) for name, _ in source.test_list])
    names = {source.meta["key"]: [f"class-{each}" for each in range(classes)]}
    name, checksum = write(source.meta["filename"], names)
    monkeypatch.setattr(source, "meta", {**source.meta, "filename": name, "md5": checksum})


@pytest.mark.parametrize(
    ("make", "source", "classes"),
    [(cifar10, torchvision.datasets.CIFAR10, 10), (cifar100, torchvision.datasets.CIFAR100, 100)],
    ids=["cifar10", "cifar100"],
)
def test_cifar_in_its_official_layout(context, tmp_path, monkeypatch, make, source, classes):
    coarse = classes == 100
    write_cifar(tmp_path / "cifar", source, monkeypatch, per_file=4 * classes, classes=classes, coarse=coarse)
    splits = checked(make(context("cifar"), val_fraction=0.25))
    total = 4 * classes * len(source.train_list)
    assert sizes(splits) == (total * 3 // 4, total // 4, 4 * classes)
    assert splits.info.inputs["image"].shape == (3, 32, 32)
    assert splits.info.classes[3] == "class-3"
    assert splits.info.class_counts == (total * 3 // 4 // classes,) * classes
    fewer = checked(make(context("cifar"), val_fraction=0.5, rows=2 * classes))
    assert sizes(fewer) == (classes, classes, 4 * classes)
    with pytest.raises(OptionError, match="rows is 1"):
        make(context("cifar"), rows=1)


def test_cifar_that_is_missing_or_altered_is_refused_unopened(context, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cifar10 is not there") as caught:
        cifar10(context("cifar"))
    assert "cifar-10-python.tar.gz" in caught.value.fix
    write_cifar(tmp_path / "cifar", torchvision.datasets.CIFAR10, monkeypatch, per_file=20, classes=10)
    path = tmp_path / "cifar" / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-10])
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("an altered pickle was opened"))
    for download in (False, True):
        with pytest.raises(DataError, match="not the official ones"):
            cifar10(replace(context("cifar"), download=download))


def test_own_images_are_split_class_by_class(context, files, tmp_path):
    files.images(tmp_path / "pictures")
    splits = checked(image_folder(context(), path="pictures", size=12))
    assert sizes(splits) == (10, 2, 4)
    assert splits.info.classes == ("cat", "dog")
    assert splits.info.inputs["image"].shape == (3, 12, 12)
    grey = checked(image_folder(context(), path="pictures", colour=False))
    assert grey.info.inputs["image"].shape == (1, 32, 32)


def test_own_images_with_folders_for_splits(context, files, tmp_path):
    for seed, (split, each) in enumerate((("train", 5), ("val", 2), ("test", 3))):
        files.images(tmp_path / "pictures" / split, each=each, seed=seed)
    assert sizes(checked(image_folder(context(), path="pictures"))) == (10, 4, 6)
    with pytest.raises(DataError, match="'dog' is not among the classes"):
        image_folder(context(), path="pictures", classes=("cat", "cow"))
    (tmp_path / "pictures" / "val").rename(tmp_path / "pictures" / "validation")
    with pytest.raises(DataError, match="not 'val'"):
        image_folder(context(), path="pictures")


def test_own_images_that_cannot_be_used_are_refused(context, files, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        image_folder(context(), path="nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="0 class folder"):
        image_folder(context(), path="empty")
    root = files.images(tmp_path / "pictures")
    broken = root / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match="cannot be read") as caught:
        image_folder(context(), path="pictures")
    assert "3.png" in caught.value.where
    with pytest.raises(OptionError, match="size is 2"):
        image_folder(context(), path="pictures", size=2)


def test_the_image_reader_gives_new_files_as_training_saw_them(context, files, tmp_path):
    root = files.images(tmp_path / "pictures")
    splits = image_folder(context(), path="pictures", size=12)
    reader = ImageReader.from_state(splits.reader.state())
    rows, identity = reader.read(root / "cat")
    assert identity["file"] == [f"{number}.png" for number in range(8)]
    whole = torch.cat([split.columns(["image"])["image"] for split in splits.named().values()])
    first = rows.row(0)["image"]
    assert any(torch.equal(first, image) for image in whole)
    with pytest.raises(DataError, match="does not exist"):
        reader.read(tmp_path / "gone.png")


def test_pairs_show_and_say_the_same_digit(context):
    splits = checked(digits_crossmodal(context(), audio="synthetic", labelled=0.2))
    assert set(splits.info.inputs) == {"waveform", "image"}
    assert splits.info.simulated
    assert len(splits.unlabelled) == 4 * len(splits.train)
    assert "target" not in splits.unlabelled.row(0)
    known, target = digit_images()
    digit_of = {image.numpy().tobytes(): int(digit) for image, digit in zip(known.float() / 255.0, target, strict=True)}
    images = {}
    for name, split in splits.named().items():
        columns = split.columns()
        shown = [digit_of[image.numpy().tobytes()] for image in columns["image"]]
        assert shown == columns["target"].tolist()
        images[name] = {image.numpy().tobytes() for image in columns["image"]}
    images["unlabelled"] = {image.numpy().tobytes() for image in splits.unlabelled.columns(["image"])["image"]}
    names = list(images)
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            assert not images[first] & images[second]


def test_pairs_of_the_real_recordings_hold_speakers_out(context, fsdd_files):
    here = replace(context(), root=fsdd_files.parent / "digits-crossmodal")
    options = {"seconds": 0.2, "mels": 8, "val_speakers": ("bob",), "test_speakers": ("cat", "dan")}
    splits = checked(digits_crossmodal(here, labelled=0.5, **options))
    assert not splits.info.simulated
    assert set(splits.train.groups) == {"ann"}
    assert set(splits.test.groups) == {"cat", "dan"}
    assert (len(splits.train), len(splits.unlabelled)) == (60, 60)
    everything = digits_crossmodal(here, labelled=1.0, augment={"time_mask": 0.1}, **options)
    assert everything.unlabelled is None
    assert everything.train.stochastic


def test_pairs_refuse_wrong_options(context):
    with pytest.raises(OptionError, match="labelled is 0"):
        digits_crossmodal(context(), labelled=0.0)
    with pytest.raises(OptionError, match="not the images paired"):
        digits_crossmodal(context(), augment={"mixup": 0.2})
    with pytest.raises(DataError, match="is not there"):
        digits_crossmodal(context(), audio="fsdd")


def test_an_unreadable_image_names_its_file(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "fine.png")
    (tmp_path / "odd.png").write_bytes(b"odd")
    with pytest.raises(DataError, match="cannot be read") as caught:
        ImageReader(shape=[1, 4, 4]).read(tmp_path)
    assert "odd.png" in caught.value.where
