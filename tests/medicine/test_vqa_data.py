"""Questions about images: VQA-RAD in both layouts, the user's own files, the simulator."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from stillhouse.errors import DataError, LeakageError, StillhouseError
from stillhouse.pipeline.data import check_splits, check_targets, fingerprint
from stillhouse_medicine.augmenters import pairings
from stillhouse_medicine.datasets.questions import NOT_IN_VOCABULARY, normalise
from stillhouse_medicine.datasets.reader import QuestionReader
from stillhouse_medicine.datasets.vqa_rad import vqa_rad
from stillhouse_medicine.datasets.vqa_sim import vqa_sim
from stillhouse_medicine.datasets.vqa_table import vqa
from stillhouse_medicine.heads import VQA

SMALL = {"size": 16, "length": 8}


def checked(splits):
    check_splits(splits, name="test")
    check_targets(splits, VQA(splits.info), name="test")
    return splits


def sizes(splits) -> list[int]:
    return [len(split) for split in splits.named().values()]


def test_the_research_layout_without_test_rows_is_split_by_image(files, context, tmp_path):
    splits = checked(vqa_rad(context(files.rad_research(tmp_path)), **SMALL))
    assert splits.info.meta["split"] == "by-image"
    assert sizes(splits) == [28, 4, 8]
    groups = [set(split.groups) for split in splits.named().values()]
    assert [len(each) for each in groups] == [7, 1, 2]
    assert len(set.union(*groups)) == 10
    assert splits.info.classes == ("12", "left lung", "no", "yes", NOT_IN_VOCABULARY)
    rows = splits.train.columns(["target", "closed", "index"])
    answers = [splits.info.classes[target] for target in rows["target"].tolist()]
    expected = [normalise(files.asked[row % 4][1]) for row in rows["index"].tolist()]
    assert answers == expected
    assert rows["closed"].tolist() == [row % 4 < 2 for row in rows["index"].tolist()]
    assert splits.train.row(0)["image"].shape == (1, 16, 16)


def test_a_split_by_question_lets_images_recur_and_keeps_the_same_words_about_an_image_together(
    files, context, tmp_path
):
    root = files.rad_research(tmp_path)
    rows = json.loads((root / "trainset.json").read_text())
    again = [{**row, "question": f"  {row['question'].upper()} "} for row in rows]
    (root / "trainset.json").write_text(json.dumps([*rows, *again]))
    splits = checked(vqa_rad(context(root), split="by-question", **SMALL))
    assert sum(sizes(splits)) == 80
    where = {row: name for name, split in splits.named().items() for row in split.index().tolist()}
    assert all(where[row] == where[row + 40] for row in range(40))
    images = [{row // 4 % 10 for row in split.index().tolist()} for split in splits.named().values()]
    assert images[0] & images[2]


def test_each_row_shows_its_own_image(files, context, tmp_path):
    root = files.rad_research(tmp_path)
    for number in range(10):  # the brightness of an image tells its number
        files.save(root / "images" / f"synpic{number}.jpg", np.full((20, 20), 20 * number, dtype=np.uint8))
    splits = vqa_rad(context(root), **SMALL)
    for split in splits.named().values():
        rows = split.batch(range(len(split)))
        shown = (rows["image"].mean(dim=(1, 2, 3)) * 255 / 20).round().long()
        assert torch.equal(shown, rows["index"] // 4)


def test_the_official_split_keeps_the_test_rows_and_separates_validation_by_image(files, context, tmp_path):
    test = files.rad_rows(2)  # of images that train has too, as in the official split
    test[0]["answer"] = "a rare finding"
    root = files.rad_research(tmp_path, test=test)
    splits = checked(vqa_rad(context(root), **SMALL))
    assert splits.info.meta["split"] == "official"
    assert sizes(splits) == [36, 4, 8]
    assert splits.test.index().tolist() == list(range(40, 48))
    assert not set(splits.train.groups) & set(splits.val.groups)
    outside = splits.info.meta["outside"]
    assert splits.test.columns(["target"])["target"].eq(outside).tolist() == [True] + [False] * 7
    assert "a rare finding" not in splits.info.classes
    by_image = checked(vqa_rad(context(root), split="by-image", **SMALL))
    assert sum(sizes(by_image)) == 48
    assert not set(by_image.train.groups) & set(by_image.test.groups)


def test_the_authors_layout_marks_test_rows_and_adds_framed_questions(files, context, tmp_path):
    splits = checked(vqa_rad(context(files.rad_authors(tmp_path)), **SMALL))
    assert splits.info.meta["split"] == "official"
    # 10 images: 1 question each for test, 3 for training and one more in the wording of its frame; 1 image is held out.
    assert sizes(splits) == [36, 4, 10]
    assert set((splits.test.index() % 4).tolist()) == {0}


def test_answers_and_words_come_from_training_rows_only(files, context, tmp_path):
    test = files.rad_rows(1)
    for row in test:
        row["question"], row["answer"] = "Zebra zebra zebra?", "zebra"
    known = vqa_rad(context(files.rad_research(tmp_path, test=test)), **SMALL)
    held = vqa_rad(context(files.rad_research(tmp_path, test=files.rad_rows(1))), **SMALL)
    assert known.info.classes == held.info.classes
    assert known.info.meta["words"] == held.info.meta["words"]
    assert (known.test.columns(["question"])["question"][:, 0] == 1).all()  # unknown
    assert (known.test.columns(["target"])["target"] == known.info.meta["outside"]).all()
    vocabulary = known.reader.vocabulary.known
    assert "zebra" not in vocabulary
    assert {"fracture", "lesion"} <= set(vocabulary)


def test_rare_answers_can_be_left_out_of_the_classes(files, context, tmp_path):
    root = files.rad_research(tmp_path)
    rows = json.loads((root / "trainset.json").read_text())
    rows[2]["answer"] = rows[6]["answer"] = "unique"
    (root / "trainset.json").write_text(json.dumps(rows))
    assert "unique" in vqa_rad(context(root), val_fraction=0.01, test_fraction=0.01, **SMALL).info.classes
    few = vqa_rad(context(root), min_answers=3, val_fraction=0.01, test_fraction=0.01, **SMALL)
    assert "unique" not in few.info.classes
    with pytest.raises(DataError, match="two are needed"):
        vqa_rad(context(root), min_answers=100, **SMALL)


def test_a_seed_gives_the_same_split_again_and_another_seed_another(files, context, tmp_path):
    root = files.rad_research(tmp_path)
    first, again = (vqa_rad(context(root), **SMALL) for _ in range(2))
    assert fingerprint(first) == fingerprint(again)
    assert any(set(vqa_rad(context(root, seed=n), **SMALL).test.groups) != set(first.test.groups) for n in (1, 2, 3))


def test_augmentation_is_for_training_only(files, context, tmp_path):
    splits = vqa_rad(context(files.rad_research(tmp_path)), augment={"shift": 0.2, "rotate": 20}, **SMALL)
    assert [split.stochastic for split in splits.named().values()] == [True, False, False]
    assert not torch.equal(splits.train.batch([0])["image"], splits.train.batch([0])["image"])
    assert torch.equal(splits.test.batch([0])["image"], splits.test.batch([0])["image"])


def _spoil(root, change) -> None:
    rows = json.loads((root / "trainset.json").read_text())
    change(rows)
    (root / "trainset.json").write_text(json.dumps(rows))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[5].update(answer_type="MAYBE"), "row 6"),
        (lambda rows: rows[5].update(question="  "), "row 6"),
        (lambda rows: rows[5].pop("answer"), "row 6"),
        (lambda rows: rows[5].update(image_name="absent.jpg"), "absent.jpg"),
        (lambda rows: rows.clear(), "no rows"),
        (lambda rows: rows.append("text"), "row 41"),
        (lambda rows: rows.__delitem__(slice(4, None)), "cannot be split"),
    ],
)
def test_bad_rows_are_refused_with_their_number(files, context, tmp_path, change, words):
    root = files.rad_research(tmp_path)
    _spoil(root, change)
    with pytest.raises(DataError) as caught:
        vqa_rad(context(root), **SMALL)
    assert words in str(caught.value)
    assert caught.value.fix or "row 41" in words


def test_missing_files_are_named_with_where_they_are_published(files, context, tmp_path):
    with pytest.raises(DataError, match=r"osf\.io") as caught:
        vqa_rad(context(tmp_path / "nothing"), **SMALL)
    assert "trainset.json" in str(caught.value)
    root = files.rad_research(tmp_path)
    with pytest.raises(DataError, match=r"testset\.json"):
        vqa_rad(context(root), split="official", **SMALL)
    (root / "images").rename(root / "elsewhere")
    with pytest.raises(DataError, match="image folder"):
        vqa_rad(context(root), **SMALL)


def test_truncated_files_are_refused_by_name(files, context, tmp_path):
    root = files.rad_research(tmp_path)
    image = root / "images" / "synpic3.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"synpic3\.jpg"):
        vqa_rad(context(root), **SMALL)
    image.write_bytes(whole)
    text = (root / "trainset.json").read_text()
    (root / "trainset.json").write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="not JSON") as caught:
        vqa_rad(context(root), **SMALL)
    assert "trainset.json, line" in str(caught.value)


def write_own(folder, rows, *, name: str = "own.csv"):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


@pytest.fixture
def own(files, tmp_path):
    """Twelve images of six patients, three questions each."""
    rows = []
    for number in range(12):
        files.save(tmp_path / "images" / f"{number}.png", files.picture(number))
        rows += [
            {
                "image": f"{number}.png",
                "question": question,
                "answer": answer,
                "patient": f"p{number // 2}",
                "part": ("train", "train", "train", "train", "val", "test")[number // 2],
                "kind": "CLOSED" if answer in ("yes", "no") else "OPEN",
            }
            for question, answer in (("Is it large, or not?", "yes"), ("Is it old?", "no"), ("What is it?", "a cyst"))
        ]
    return rows


def test_own_questions_from_csv_and_json_are_the_same(own, context, tmp_path):
    write_own(tmp_path, own)
    (tmp_path / "own.json").write_text(json.dumps(own))
    options = {"group": "patient", "answer_type": "kind", **SMALL}
    from_csv = checked(vqa(context(), path="own.csv", **options))
    from_json = checked(vqa(context(), path="own.json", **options))
    assert from_csv.test.fingerprint() == from_json.test.fingerprint()
    groups = [set(split.groups) for split in from_csv.named().values()]
    assert [len(each) for each in groups] == [4, 1, 1]
    assert from_csv.info.classes[:3] == ("a cyst", "no", "yes")
    assert checked(vqa(context(), path="own.csv", **SMALL)).train.columns(["closed"])["closed"].sum() > 0


def test_own_splits_are_kept_and_a_patient_in_two_of_them_is_refused(own, context, tmp_path):
    write_own(tmp_path, own)
    splits = checked(vqa(context(), path="own.csv", split="part", group="patient", **SMALL))
    assert sizes(splits) == [24, 6, 6]
    for row in own[:3]:  # one image of patient p0
        row["part"] = "test"
    write_own(tmp_path, own)
    with pytest.raises(LeakageError, match="p0"):
        checked(vqa(context(), path="own.csv", split="part", group="patient", **SMALL))
    own[0]["part"] = "train"  # and now one image is in two splits
    write_own(tmp_path, own)
    with pytest.raises(LeakageError, match=r"0\.png"):
        checked(vqa(context(), path="own.csv", split="part", **SMALL))


def test_own_files_that_cannot_be_used_are_refused(own, context, tmp_path):
    def refused(words: str, **options):
        with pytest.raises(StillhouseError) as caught:
            vqa(context(), **{"path": "own.csv", **SMALL, **options})
        assert words in str(caught.value)

    refused("does not exist")
    write_own(tmp_path, own)
    refused("did you mean 'answer'", answer="anwser")
    refused("train, val or test", split="kind")
    refused("CLOSED or OPEN", answer_type="part")
    refused("val: 1.5", val_fraction=1.5)
    refused("cannot be split", val_fraction=0.6, test_fraction=0.5)
    write_own(tmp_path, [{**row, "part": "train"} for row in own])
    refused("split 'val' is empty", split="part")
    write_own(tmp_path, [*own, {**own[0], "image": "absent.png"}])
    refused("row 37, column 'image'")
    write_own(tmp_path, [*own, {**own[0], "image": f"{'a' * 300}.png"}])  # longer than a file system takes names
    refused("row 37, column 'image'")
    write_own(tmp_path, own[:1])
    (tmp_path / "own.csv").write_text("image,question,answer\n0.png,What?\n")
    refused("another number of fields")
    (tmp_path / "own.csv").write_bytes("image,question,answer\n0.png,Où?,là\n".encode("latin-1"))
    refused("UTF-8")


def test_the_reader_of_a_trained_model_reads_new_questions(own, context, tmp_path):
    write_own(tmp_path, own)
    splits = vqa(context(), path="own.csv", **SMALL)
    reader = QuestionReader.from_state(json.loads(json.dumps(splits.reader.state())))
    rows, said = reader.read(tmp_path / "own.csv")
    assert said["question"] == [row["question"] for row in own]
    where = splits.test.index().tolist()
    expected = splits.test.batch(range(len(splits.test)))
    found = rows.batch(where)
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["question"], expected["question"])
    write_own(tmp_path, [{"image": "0.png", "text": "What?"}], name="new.csv")
    with pytest.raises(DataError, match="no column 'question'"):
        reader.read(tmp_path / "new.csv")


def test_simulated_questions_say_so_and_are_seeded(context):
    first, again, other = (vqa_sim(context(seed=seed), images=40) for seed in (0, 0, 1))
    checked(first)
    assert first.info.simulated
    assert "simulated" in first.info.description
    assert fingerprint(first) == fingerprint(again) != fingerprint(other)
    groups = [set(split.groups) for split in first.named().values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 40
    with pytest.raises(DataError, match="too few"):
        vqa_sim(context(), images=5)


def test_simulated_answers_need_the_image(context):
    splits = vqa_sim(context(), images=300)
    by_words: dict[bytes, Counter] = defaultdict(Counter)
    for split in splits.named().values():
        rows = split.columns(["question", "target"])
        for question, target in zip(rows["question"], rows["target"].tolist(), strict=True):
            by_words[question.numpy().tobytes()][target] += 1
    # The best that words alone can do, even when told all answers.
    best = sum(max(each.values()) for each in by_words.values()) / sum(sum(each.values()) for each in by_words.values())
    assert best < 0.65


@pytest.mark.parametrize(
    ("raw", "clean"), [(" Yes. ", "yes"), ("left  lung", "left lung"), (12, "12"), ("Dr. X", "dr. x"), ("\tNo\n", "no")]
)
def test_answers_are_normalised(raw, clean):
    assert normalise(raw) == clean


def test_pairings_ask_training_questions_of_other_training_images_without_an_answer(files, context, tmp_path):
    root = files.rad_research(tmp_path)
    for number in range(10):
        files.save(root / "images" / f"synpic{number}.jpg", np.full((20, 20), 20 * number, dtype=np.uint8))
    splits = checked(vqa_rad(context(root), **SMALL))
    assert splits.unlabelled is None
    train, info, count = splits.train, splits.info, 3 * len(splits.train)
    extra = pairings()(train, info, count, 0)
    rows, labelled = extra.batch(range(count)), train.batch(range(len(train)))
    assert "target" not in rows
    assert torch.equal(rows["question"], labelled["question"].repeat(3, 1))

    def images(batch) -> set[int]:
        return set((batch["image"].mean(dim=(1, 2, 3)) * 255 / 20).round().int().tolist())

    assert images(rows) == images(labelled)
    assert extra.fingerprint() != pairings()(train, info, count, 1).fingerprint()
    augmented = vqa_rad(context(root), augment={"shift": 0.1}, **SMALL)
    assert pairings()(augmented.train, info, count, 0).stochastic
    once = [pairings(augment={"noise": 0.2})(train, info, count, 0) for _ in range(2)]
    assert not once[0].stochastic
    assert once[0].fingerprint() == once[1].fingerprint()
    shown, still = once[0].batch(range(8))["image"], extra.batch(range(8))["image"]
    assert 0.03 < float((shown - still).abs().mean()) < 0.4


def test_organ_questions_are_added_to_training_images_only(files, context, tmp_path):
    root = files.rad_research(tmp_path)
    rows = json.loads((root / "trainset.json").read_text())
    for row in rows:
        row["image_organ"] = ("HEAD", "CHEST", "ABD ")[int(row["image_name"][6:-4]) % 3]
    (root / "trainset.json").write_text(json.dumps(rows))
    plain, asked = (vqa_rad(context(root), organ_questions=more, **SMALL) for more in (False, True))
    checked(asked)
    assert len(asked.train) == len(plain.train) + 4 * len(set(plain.train.groups))
    assert asked.train.auxiliary == [at >= len(plain.train) for at in range(len(asked.train))]
    assert plain.train.auxiliary is None is asked.val.auxiliary
    assert set(asked.train.groups) == set(plain.train.groups)
    assert torch.equal(asked.test.index(), plain.test.index())
    extra = asked.train.columns(["target", "index"])
    words = [asked.info.classes[at] for at in extra["target"][len(plain.train) :].tolist()]
    images = sorted(set(plain.train.groups))
    parts = ("head", "chest", "abdomen")
    for at, image in enumerate(images):
        shown = parts[int(image[6:-4]) % 3]
        assert words[4 * at : 4 * at + 4] == [shown, *("yes" if part == shown else "no" for part in parts)]
    _spoil(root, lambda rows: rows[3].update(image_organ="TOE"))
    with pytest.raises(DataError, match="image_organ is 'TOE'"):
        vqa_rad(context(root), organ_questions=True, **SMALL)
