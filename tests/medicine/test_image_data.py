"""Labelled images: MedMNIST files, folders of classes, images with masks, what needs no download."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections import Counter
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

from stillhouse.errors import DataError, LeakageError, OptionError
from stillhouse.pipeline.data import check_splits, fingerprint
from stillhouse_medicine.datasets import medmnist as module
from stillhouse_medicine.datasets.breast_cancer import breast_cancer
from stillhouse_medicine.datasets.folders import image_folder, mask_folder
from stillhouse_medicine.datasets.medmnist import medmnist, official_sets
from stillhouse_medicine.datasets.reader import ImageReader
from stillhouse_medicine.datasets.shapes_seg import shapes_seg_sim
from stillhouse_medicine.images import read_image, read_mask


def sizes(splits) -> list[int]:
    check_splits(splits, name="test")
    return [len(split) for split in splits.named().values()]


def own_set(tmp_path, arrays, name: str = "own"):
    np.savez(tmp_path / f"{name}.npz", **arrays)
    return {"path": f"{name}.npz"}


def test_a_file_of_an_official_name_is_checked_and_a_changed_one_accepted_with_a_warning(
    files, context, tmp_path, monkeypatch
):
    np.savez(tmp_path / "pneumoniamnist.npz", **files.medmnist())
    with pytest.warns(UserWarning, match="not the official file"):
        splits = medmnist(context())
    assert splits.info.meta["checksum"] == "differs"
    assert "not the official file" in splits.info.description
    assert splits.info.classes == ("normal", "pneumonia")
    digest = hashlib.md5((tmp_path / "pneumoniamnist.npz").read_bytes()).hexdigest()
    known = {"pneumoniamnist": {**official_sets()["pneumoniamnist"], "md5": {"28": digest}}}
    monkeypatch.setattr(module, "official_sets", lambda: known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        official = medmnist(context())
    assert official.info.meta["checksum"] == "official"
    assert sizes(official) == [24, 8, 10]


def test_a_missing_official_file_is_downloaded_where_that_is_allowed(files, context, tmp_path, monkeypatch):
    published = tmp_path / "published" / "files"
    published.mkdir(parents=True)
    np.savez(published / "pneumoniamnist.npz", **files.medmnist())
    digest = hashlib.md5((published / "pneumoniamnist.npz").read_bytes()).hexdigest()
    known = {"pneumoniamnist": {**official_sets()["pneumoniamnist"], "md5": {"28": digest}}}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(published.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(module, "official_sets", lambda: known)
    monkeypatch.setattr(module, "ARCHIVE", f"http://127.0.0.1:{server.server_port}")
    try:
        with pytest.raises(DataError, match="nothing may be downloaded"):
            medmnist(context())
        splits = medmnist(replace(context(), download=True))
    finally:
        server.shutdown()
        server.server_close()
    assert splits.info.meta["checksum"] == "official"
    assert (tmp_path / "pneumoniamnist.npz").is_file()


def test_rows_hold_the_pixels_and_labels_of_the_file(files, context, tmp_path):
    arrays = files.medmnist()
    splits = medmnist(context(), **own_set(tmp_path, arrays))
    assert splits.info.meta["task"] == "binary"
    assert splits.info.class_counts == (12, 12)
    for part, split in splits.named().items():
        rows = split.batch(range(len(split)))
        np.testing.assert_array_equal((rows["image"][:, 0] * 255).round().byte().numpy(), arrays[f"{part}_images"])
        assert rows["target"].dtype == torch.float32
        np.testing.assert_array_equal(rows["target"].numpy(), arrays[f"{part}_labels"][:, 0])


@pytest.mark.parametrize(
    ("made", "options", "task", "shape", "classes"),
    [
        ({"labels": 4}, {}, "multiclass", (1, 28, 28), 4),
        ({"labels": 2, "columns": 3}, {}, "multilabel", (1, 28, 28), 3),
        ({"labels": 2, "colour": True, "size": 16}, {"task": "multiclass"}, "multiclass", (3, 16, 16), 2),
    ],
    ids=["multiclass", "multilabel", "colour"],
)
def test_the_task_is_told_by_the_labels_or_by_the_user(files, context, tmp_path, made, options, task, shape, classes):
    splits = medmnist(context(), **own_set(tmp_path, files.medmnist(**made)), **options)
    assert splits.info.meta["task"] == task
    assert splits.info.inputs["image"].shape == shape
    assert len(splits.info.classes) == classes
    target = splits.train.columns(["target"])["target"]
    assert target.shape == ((24, classes) if task == "multilabel" else (24,))
    assert sum(splits.info.class_counts) == (int(target.sum()) if task == "multilabel" else 24)


@pytest.mark.parametrize("labels", [2, 4], ids=["binary", "multiclass"])
def test_noise_makes_a_share_of_the_training_labels_wrong_and_no_others(files, context, tmp_path, labels):
    own = own_set(tmp_path, files.medmnist(rows=(200, 20, 20), labels=labels))
    clean, noisy, again = (medmnist(context(), **own, noise=share) for share in (0.0, 0.3, 0.3))
    targets = [
        [split.columns(["target"])["target"] for split in each.named().values()] for each in (clean, noisy, again)
    ]
    (train, *others), (wrong, *same), (repeated, *_) = targets
    assert (train != wrong).sum() == 60
    assert wrong.dtype == train.dtype
    assert torch.equal(wrong, repeated)
    assert set(wrong.tolist()) == set(range(labels))
    assert all(torch.equal(one, other) for one, other in zip(others, same, strict=True))
    assert sum(noisy.info.class_counts) == 200
    assert noisy.info.class_counts == tuple(torch.bincount(wrong.long()).tolist())
    assert "30% of the training labels made wrong" in noisy.info.description
    elsewhere = medmnist(replace(context(), seed=1), **own, noise=0.3).train.columns(["target"])["target"]
    assert (elsewhere != wrong).any()


@pytest.mark.parametrize(("noise", "columns", "message"), [(1.0, 1, "noise is 1.0"), (0.1, 3, "one class a row")])
def test_noise_that_makes_no_sense_is_refused(files, context, tmp_path, noise, columns, message):
    with pytest.raises(OptionError, match=message):
        medmnist(context(), **own_set(tmp_path, files.medmnist(columns=columns)), noise=noise)


def test_slices_of_a_volume_become_channels(context, tmp_path):
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.zeros((4, 6, 6, 6), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.array([[0], [1], [0], [1]], dtype=np.uint8)
    splits = medmnist(context(), **own_set(tmp_path, arrays))
    assert splits.info.inputs["image"].shape == (6, 6, 6)
    assert splits.reader is None


def test_the_table_of_official_sets_is_complete():
    table = official_sets()
    assert len(table) == 18
    assert Counter(each["task"] for each in table.values())["multilabel"] == 1
    for each in table.values():
        assert len(each["classes"]) >= 2
        assert all(len(digest) == 32 for digest in each["md5"].values())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("val_labels"), "val_labels"),
        (lambda a: a.update(test_labels=np.full((10, 1), 7, dtype=np.uint8)), "row 0 has the label 7"),
        (lambda a: a.update(train_labels=a["train_labels"][:-1]), "24 images have 23 labels"),
        (lambda a: a.update(train_labels=a["train_labels"].astype(np.float32)), "not integers"),
        (lambda a: a.update(val_images=a["val_images"][:0], val_labels=a["val_labels"][:0]), "at least one image"),
        (lambda a: a.update(test_images=a["test_images"].astype(np.float32)), "float32"),
        (lambda a: a.update(test_images=a["test_images"][:, :20]), "differ in shape"),
        (lambda a: a.update(val_labels=np.zeros((8, 3), dtype=np.uint8)), "shape"),
    ],
)
def test_bad_arrays_are_refused(files, context, tmp_path, change, words):
    arrays = files.medmnist()
    change(arrays)
    with pytest.raises(DataError) as caught:
        medmnist(context(), **own_set(tmp_path, arrays))
    assert words in str(caught.value)
    assert "own.npz" in str(caught.value)


def test_missing_truncated_and_unsafe_files_are_refused(files, context, tmp_path):
    with pytest.raises(DataError, match="zenodo"):
        medmnist(context())
    own_set(tmp_path, files.medmnist(), "pathmnist")
    with pytest.raises(DataError, match="did you mean 'pathmnist'"):
        medmnist(context(), name="pathmnst")
    file = tmp_path / "own.npz"
    own_set(tmp_path, files.medmnist())
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="truncated or corrupt"):
        medmnist(context(), path="own.npz")
    file.write_bytes(whole[:5000] + bytes(64) + whole[5064:])  # damaged inside an array
    with pytest.raises(DataError, match="truncated or corrupt"):
        medmnist(context(), path="own.npz")
    own_set(tmp_path, {**files.medmnist(), "train_labels": np.array([{"a": 1}] * 24, dtype=object)})
    with pytest.raises(DataError, match="cannot be read"):  # nothing is unpickled
        medmnist(context(), path="own.npz")


@pytest.fixture
def folder(files, tmp_path):
    """Two classes of twelve images, two of each patient."""
    for at, name in enumerate(("benign", "malignant")):
        for number in range(12):
            patient = 20 * at + number // 2
            files.save(tmp_path / "own" / name / f"p{patient}_{number}.png", files.picture(100 * at + number))
    return tmp_path / "own"


def test_a_folder_for_each_class_is_split_with_every_class_in_every_split(folder, context):
    splits = image_folder(context(), path="own", size=16)
    assert sizes(splits) == [16, 4, 4]
    assert splits.info.classes == ("benign", "malignant")
    assert splits.info.meta["task"] == "binary"
    for split in splits.named().values():
        assert 0 < split.columns(["target"])["target"].mean() < 1


def test_patients_named_in_the_files_stay_together(folder, context):
    splits = image_folder(context(), path="own", size=16, group="_")
    assert sizes(splits) == [16, 4, 4]
    groups = [set(split.groups) for split in splits.named().values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    with pytest.raises(DataError, match="has no '-'"):
        image_folder(context(), path="own", group="-")


def test_copies_of_an_image_stay_together(folder, context):
    for number in range(12):
        file = folder / "benign" / f"p{number // 2}_{number}.png"
        (folder / "benign" / f"copy{number}.png").write_bytes(file.read_bytes())
    splits = image_folder(context(), path="own", size=16)
    seen = [
        {row.numpy().tobytes() for row in split.batch(range(len(split)))["image"]} for split in splits.named().values()
    ]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_folders_that_are_split_already_are_kept(files, context, tmp_path):
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        for at, name in enumerate(("a", "b", "c")):
            for number in range(count):
                seed = 100 * at + number + {"train": 0, "val": 20, "test": 40}[part]
                files.save(tmp_path / "own" / part / name / f"x{number}.png", files.picture(seed))
    splits = image_folder(context(), path="own", size=16, colour=True)
    assert sizes(splits) == [12, 6, 9]
    assert splits.info.meta["task"] == "multiclass"
    assert splits.info.inputs["image"].shape == (3, 16, 16)
    (tmp_path / "own/test/a/again.png").write_bytes((tmp_path / "own/train/a/x1.png").read_bytes())
    with pytest.raises(LeakageError, match=r"again\.png.*x1\.png"):
        image_folder(context(), path="own", size=16)
    (tmp_path / "own/test/a/again.png").unlink()
    files.save(tmp_path / "own/test/d/new.png", files.picture(900))
    with pytest.raises(DataError, match="the class folder 'd'"):
        image_folder(context(), path="own", size=16)


def test_folders_that_cannot_be_used_are_refused(folder, context, tmp_path):
    with pytest.raises(DataError, match="folder does not exist"):
        image_folder(context(), path="absent")
    with pytest.raises(OptionError, match=r"val: 0\.5, test: 0\.5"):
        image_folder(context(), path="own", val_fraction=0.5, test_fraction=0.5)
    with pytest.raises(OptionError, match="size is 2"):
        image_folder(context(), path="own", size=2)
    (folder / "benign" / "p0_0.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"p0_0\.png"):
        image_folder(context(), path="own")
    (tmp_path / "one" / "only").mkdir(parents=True)
    with pytest.raises(DataError, match="1 class folder"):
        image_folder(context(), path="one")
    (tmp_path / "two" / "a").mkdir(parents=True)
    (tmp_path / "two" / "b").mkdir()
    with pytest.raises(DataError, match="no files"):
        image_folder(context(), path="two")


def test_16_bit_images_keep_their_contrast(tmp_path):
    values = np.linspace(1000, 3000, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    pixels = read_image(tmp_path / "deep.png", 64, colour=False)
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    assert len(np.unique(pixels)) > 200


def test_images_keep_their_proportions(files, tmp_path):
    files.save(tmp_path / "wide.png", np.full((20, 40), 200, dtype=np.uint8))
    pixels = read_image(tmp_path / "wide.png", 32, colour=False)[0]
    assert (pixels[8:24] == 200).all()
    assert (pixels[:8] == 0).all()
    assert (pixels[24:] == 0).all()


@pytest.fixture
def masked(files, tmp_path):
    """Ten images with masks of three values."""
    for number in range(10):
        files.save(tmp_path / "own" / "images" / f"p{number // 2}_{number}.jpg", files.picture(number, 24, 24))
        mask = np.zeros((24, 24), dtype=np.uint8)
        mask[4:12, 4:12] = 1
        mask[20:, :] = 255
        files.save(tmp_path / "own" / "masks" / f"p{number // 2}_{number}.png", mask)
    return tmp_path / "own"


def test_masks_follow_their_images(masked, context):
    splits = mask_folder(context(), path="own", size=24, group="_")
    assert sizes(splits) == [6, 2, 2]
    groups = [set(split.groups) for split in splits.named().values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) == 5
    rows = splits.test.batch([0])
    assert rows["target"].shape == (1, 24, 24)
    assert rows["target"].dtype == torch.int64
    assert sorted(rows["target"].unique().tolist()) == [0, 1, 255]
    assert int((rows["target"] == 1).sum()) == 64


def test_masks_move_with_augmented_images(masked, files, context):
    for file in (masked / "masks").iterdir():  # the image shows its mask
        mask = np.zeros((24, 24), dtype=np.uint8)
        mask[4:14, 6:16] = 1
        files.save(file, mask)
        files.save(masked / "images" / f"{file.stem}.jpg", mask * 255)
    augment = {"shift": 0.15, "rotate": 25, "scale": 0.2, "mirror": 1}
    splits = mask_folder(context(), path="own", size=24, group="_", augment=augment)
    rows = splits.train.batch(range(len(splits.train)))
    agree = ((rows["image"][:, 0] > 0.5).long() == rows["target"]).float().mean()
    assert agree > 0.95
    assert not torch.equal(
        rows["target"][0], torch.from_numpy(read_mask(next((masked / "masks").iterdir()), 24)).long()
    )


def test_bad_masks_are_refused(masked, files, context):
    first = sorted((masked / "masks").iterdir())[0]
    whole = first.read_bytes()
    files.save(first, np.full((24, 24), 3, dtype=np.uint8))
    with pytest.raises(DataError, match="has the value 3"):
        mask_folder(context(), path="own", size=24)
    four = ("background", "a", "b", "c")
    assert sum(sizes(mask_folder(context(), path="own", size=24, classes=four))) == 10
    files.save(first, np.full((24, 24), 255, dtype=np.uint8))
    black_and_white = mask_folder(context(), path="own", size=24, threshold=True)
    targets = torch.cat([split.columns(["target"])["target"] for split in black_and_white.named().values()])
    assert set(targets.unique().tolist()) == {0, 1}
    files.save(first, files.picture(0, 24, 24, 3))
    with pytest.raises(DataError, match="mode RGB"):
        mask_folder(context(), path="own", size=24)
    first.write_bytes(whole[:40])
    with pytest.raises(DataError, match="cannot be read"):
        mask_folder(context(), path="own", size=24)
    first.unlink()
    with pytest.raises(DataError, match="has no mask"):
        mask_folder(context(), path="own", size=24)


def test_new_images_are_read_as_the_training_images_were(folder, context):
    splits = image_folder(context(), path="own", size=16)
    reader = ImageReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, said = reader.read(folder)
    assert len(rows) == 24
    assert said["file"][0] == "benign/p0_0.png"
    whole = {row.numpy().tobytes() for row in rows.batch(range(24))["image"]}
    assert splits.test.row(0)["image"].numpy().tobytes() in whole
    one, said = reader.read(folder / "benign" / "p0_0.png")
    assert (len(one), said["file"]) == (1, ["p0_0.png"])
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no image"):
        reader.read(folder / "empty")


def test_simulated_scans_are_seeded_and_say_so(context):
    first, again, other = (shapes_seg_sim(context(seed=seed), images=20) for seed in (0, 0, 1))
    assert sizes(first) == [12, 3, 5]
    assert first.info.simulated
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    assert set(first.train.columns(["target"])["target"].unique().tolist()) == {0, 1, 2}
    with pytest.raises(DataError, match="too few"):
        shapes_seg_sim(context(), images=2)


def test_breast_cancer_is_standardised_by_training_rows(context):
    splits = breast_cancer(context())
    assert sum(sizes(splits)) == 569
    values = splits.train.columns()["measurements"]
    torch.testing.assert_close(values.mean(0), torch.zeros(30), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(30), atol=1e-4, rtol=0)
    assert splits.test.columns()["measurements"].mean().abs() > 1e-4
    malignant = sum(int(split.columns(["target"])["target"].sum()) for split in splits.named().values())
    assert malignant == 212
    assert fingerprint(splits) == fingerprint(breast_cancer(context())) != fingerprint(breast_cancer(context(seed=1)))
