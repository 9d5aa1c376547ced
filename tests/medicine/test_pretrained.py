"""Encoders from Hugging Face folders, made and saved by the tests."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from stillhouse.errors import DataError, IncompatibleError, MissingDependencyError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.taps import Taps
from stillhouse.text import locate_pretrained
from stillhouse.types import Task
from stillhouse_medicine.datasets.vqa_rad import vqa_rad
from stillhouse_medicine.encoders.frozen import Frozen
from stillhouse_medicine.encoders.images import HuggingFaceImage
from stillhouse_medicine.encoders.questions import word_vectors
from stillhouse_medicine.film import Components, Everything
from stillhouse_medicine.heads import VQA
from stillhouse_medicine.students import vqa_small_film
from stillhouse_medicine.teachers import vqa_coattention, vqa_film
from stillhouse_medicine.text import Tokens, Vocabulary

SMALL = {"width": 16, "layers": 1, "text_layers": 1, "attention_heads": 2}


@pytest.mark.parametrize(("kind", "places"), [("vit", 5), ("resnet", 64)])
def test_a_vision_model_gives_a_vector_for_each_place(saved, tmp_path, kind, places):
    encoder = HuggingFaceImage(str(getattr(saved, kind)(tmp_path / kind)))
    size = 16 if kind == "vit" else 64
    for channels in (1, 3):
        seen = encoder(torch.rand(2, channels, size, size))
        assert seen.shape == (2, places, encoder.width)


def test_weights_are_those_of_the_folder(saved, tmp_path):
    from transformers import ViTModel

    folder = saved.vit(tmp_path / "vit")
    source, encoder = ViTModel.from_pretrained(folder, add_pooling_layer=False), HuggingFaceImage(str(folder))
    image = torch.rand(2, 1, 16, 16)
    source.eval()
    encoder.eval()
    expected = source(pixel_values=(image.expand(-1, 3, -1, -1) - 0.5) / 0.5).last_hidden_state
    torch.testing.assert_close(encoder(image), expected)


def test_a_teacher_of_two_pre_trained_encoders_learns_around_them(saved, files, context, tmp_path):
    text, image = str(saved.bert(tmp_path / "bert")), str(saved.vit(tmp_path / "vit"))
    splits = vqa_rad(context(files.rad_research(tmp_path / "rad")), size=16, length=8, tokenizer=text)
    assert splits.info.inputs["tokens"].shape == (8,)
    assert splits.info.meta["tokens"] == {"name": text, "pad": 0}
    task = Task(info=splits.info, kind=OutputKind.MULTICLASS, outputs=len(splits.info.classes))
    teacher = vqa_coattention(task, image_encoder=image, text_encoder=text, **SMALL)
    frozen = {name: value.clone() for name, value in teacher.state_dict().items() if ".encoder." in name}
    assert frozen
    batch = splits.train.batch(range(8))
    optimizer = torch.optim.SGD([each for each in teacher.parameters() if each.requires_grad], lr=0.1)
    teacher.train()
    teacher(image=batch["image"], tokens=batch["tokens"]).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(teacher.state_dict()[name], value) for name, value in frozen.items())
    assert not teacher.text.encoder.training
    teacher.eval()
    again = vqa_coattention(task, image_encoder=image, text_encoder=text, **SMALL).eval()
    again.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            teacher(image=batch["image"], tokens=batch["tokens"]), again(image=batch["image"], tokens=batch["tokens"])
        )
    tuned = vqa_coattention(task, image_encoder=image, text_encoder=text, freeze=False, **SMALL)
    tuned(image=batch["image"], tokens=batch["tokens"]).square().mean().backward()
    assert tuned.image.model.embeddings.cls_token.grad is not None


def test_the_text_encoder_and_the_tokenizer_must_be_the_same(saved, tasks, tmp_path):
    text = str(saved.bert(tmp_path / "bert"))
    with pytest.raises(IncompatibleError, match="tokenizer is 'none'") as caught:
        vqa_coattention(tasks.vqa(), text_encoder=text)
    assert "dataset.tokenizer" in caught.value.fix
    with pytest.raises(IncompatibleError, match="tokenizer is 'other'"):
        vqa_coattention(tasks.vqa(tokens={"name": "other", "pad": 0}), text_encoder=text)


def test_tokens_are_those_of_the_tokenizer(saved, tmp_path):
    tokens = Tokens(str(saved.bert(tmp_path / "bert")), 8)
    # [CLS] is there a lesion ? [SEP]; an unknown word is [UNK].
    assert tokens.encode(["Is there a lesion?", "zebra"]).tolist() == [
        [2, 5, 6, 7, 10, 11, 3, 0],
        [2, 1, 3, 0, 0, 0, 0, 0],
    ]
    assert tokens.pad() == 0


def test_what_is_not_a_pre_trained_model_is_refused(saved, tasks, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be loaded"):
        Tokens(str(tmp_path / "empty"), 8).encode(["a"])
    with pytest.raises(DataError, match="vision model") as caught:
        vqa_coattention(tasks.vqa(), image_encoder=str(tmp_path / "empty"))
    assert "safetensors" in caught.value.fix
    broken = saved.vit(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(DataError, match="broken"):
        vqa_coattention(tasks.vqa(), image_encoder=str(broken))
    weights.unlink()
    torch.save({}, broken / "pytorch_model.bin")  # a pickle: not read
    with pytest.raises(DataError, match="broken"):
        vqa_coattention(tasks.vqa(), image_encoder=str(broken))


def test_a_model_inside_a_package_is_named_by_package_and_folder(tmp_path, monkeypatch):
    package = tmp_path / "carried_model"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate_pretrained("carried_model:model") == str(package / "model")
    assert "carried_model" not in sys.modules
    assert locate_pretrained("org/model-name") == "org/model-name"
    assert locate_pretrained(str(package)) == str(package)
    with pytest.raises(DataError, match="no folder 'other'"):
        locate_pretrained("carried_model:other")
    with pytest.raises(MissingDependencyError) as caught:
        locate_pretrained("absent_package_of_models:model")
    assert caught.value.fix == "pip install absent-package-of-models"


def test_a_frozen_encoder_sees_each_distinct_input_once(monkeypatch):
    calls = []

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, rows):
            calls.append(len(rows))
            return rows * 2 * self.weight

    frozen = Frozen(Encoder())
    rows = torch.tensor([[1.0], [2.0], [1.0], [3.0]])
    frozen.train()
    assert torch.equal(frozen(rows), rows * 2)
    assert torch.equal(frozen(rows[:2]), rows[:2] * 2)
    assert calls == [3]  # the second time nothing is new
    frozen.eval()
    assert torch.equal(frozen(rows), rows * 2)
    assert torch.equal(frozen(rows), rows * 2)
    assert calls == [3, 3, 3]  # nothing is kept that would make a measured latency too good
    assert not frozen.encoder.training
    assert "_remembered" not in frozen.state_dict()
    monkeypatch.setattr(Frozen, "LIMIT", 2)
    frozen.train()
    assert torch.equal(frozen(rows), rows * 2)
    assert torch.equal(frozen(rows + 5), (rows + 5) * 2)
    assert len(frozen._remembered) <= 6


def test_a_vocabulary_survives_its_state_and_cuts_long_questions():
    vocabulary = Vocabulary.build(["is there a lesion", "is there a mass", "is it large"], length=4)
    assert vocabulary.known == ("is", "a", "there")
    assert vocabulary.encode(["IS there, a lesion?", "", "a a a a a a"]).tolist() == [
        [2, 4, 3, 1],
        [1, 0, 0, 0],
        [3, 3, 3, 3],
    ]
    again = Vocabulary.from_state(vocabulary.state())
    assert again == vocabulary
    assert again.size == 5


def test_components_are_the_principal_ones_of_the_first_training_batch():
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    torch.manual_seed(0)
    states = (torch.randn(40, 3, 2) @ torch.randn(2, 12) + 0.05 * torch.randn(40, 3, 12)).double()
    squeeze = Components(12, 2).double()
    squeeze.eval()
    assert (squeeze(states) == 0).all()  # nothing is learnt outside training
    squeeze.train()
    found = squeeze(torch.cat([states, states[:7]]))[:40]  # an image that several questions ask about counts once
    pooled = states.mean(dim=1).numpy()
    expected = PCA(2, whiten=True).fit_transform(StandardScaler().fit_transform(pooled))
    for at in range(2):
        assert abs(float(torch.corrcoef(torch.stack([found[:, at], torch.from_numpy(expected[:, at])]))[0, 1])) > 0.999
    torch.testing.assert_close(found.std(dim=0, correction=0), torch.ones(2).double())
    before = squeeze(states[:5])
    squeeze(torch.randn(20, 3, 12).double())  # later batches change nothing
    again = Components(12, 2).double()
    again.load_state_dict(squeeze.state_dict())
    assert torch.equal(again.eval()(states[:5]), before)


def test_all_that_an_encoder_says_is_standardised_once_and_has_one_length():
    torch.manual_seed(0)
    scale = torch.linspace(1, 3, 12)
    states, whole = torch.randn(40, 3, 12) * scale + 5, Everything(12).train()
    found = whole(states)
    pooled = states.mean(dim=1)
    expected = (pooled - pooled.mean(dim=0)) / pooled.std(dim=0, correction=0)
    expected = 12**0.5 * expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    torch.testing.assert_close(found.norm(dim=1), torch.full((40,), 12**0.5))
    whole(torch.randn(20, 3, 12))  # later batches change nothing
    again = Everything(12).eval()
    again.load_state_dict(whole.state_dict())
    assert torch.equal(again(states), found)


@pytest.mark.parametrize("components", [3, None])
def test_the_teacher_for_few_images_learns_between_two_frozen_encoders(saved, files, context, tmp_path, components):
    text, image = str(saved.bert(tmp_path / "bert")), str(saved.vit(tmp_path / "vit"))
    splits = vqa_rad(context(files.rad_research(tmp_path / "rad")), size=16, length=8, tokenizer=text)
    task = Task(info=splits.info, kind=OutputKind.MULTICLASS, outputs=len(splits.info.classes))
    torch.manual_seed(0)
    options = {"text_encoder": text, "image_encoder": image, "width": 32, "components": components}
    teacher = vqa_film(task, **options, dropout=0.1).train()
    head = VQA(splits.info)
    learning = [each for each in teacher.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=0.02)
    batch = splits.train.batch(range(len(splits.train)))
    for _ in range(60):
        optimizer.zero_grad()
        head.hard_loss(teacher(image=batch["image"], tokens=batch["tokens"]), batch).backward()
        optimizer.step()
    teacher.eval()
    with Taps(teacher, ("image_features", "question_features", "fused")) as taps, torch.no_grad():
        prediction = teacher(image=batch["image"], tokens=batch["tokens"])
        shapes = {name: tuple(feature.shape) for name, feature in taps.take().items()}
    seen = components or teacher.image.encoder.width
    assert shapes == {"image_features": (28, seen), "question_features": (28, 32), "fused": (28, 32)}
    assert head.evaluate(prediction, batch)["accuracy"] > 0.6
    again = vqa_film(task, **options).eval()
    again.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again(image=batch["image"], tokens=batch["tokens"]), prediction)
    assert not any(each.requires_grad for each in (*teacher.image.parameters(), *teacher.text.parameters()))


def test_the_teacher_for_few_images_refuses_what_does_not_fit(tasks):
    with pytest.raises(OptionError, match="components is 0"):
        vqa_film(tasks.vqa(), components=0)
    with pytest.raises(OptionError, match="components is null, and the image encoder is not pre-trained"):
        vqa_film(tasks.vqa(), components=None)
    with pytest.raises(IncompatibleError, match="tokenizer is 'none'"):
        vqa_film(tasks.vqa(), text_encoder="x")
    with pytest.raises(OptionError, match="components is 0"):
        vqa_small_film(tasks.vqa(), components=0)


def test_word_vectors_are_the_principal_components_of_what_an_encoder_says_of_words(saved, tmp_path):
    from sklearn.decomposition import PCA
    from transformers import AutoModel, AutoTokenizer

    folder = saved.bert(tmp_path / "bert")
    words = ["is", "there", "a", "fracture", "mass", "where", "lesion", "how"]
    found = word_vectors(str(folder), words, width=4)
    tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        said = [encoder(**tokenizer(word, return_tensors="pt")).last_hidden_state.mean(dim=1)[0] for word in words]
    expected = PCA(4).fit_transform(torch.stack(said).double().numpy())
    expected = torch.from_numpy(expected / expected.std(ddof=1)).float()
    assert found.shape == (8, 4)
    torch.testing.assert_close(found.abs(), expected.abs(), atol=1e-3, rtol=1e-3)
    assert torch.equal(word_vectors(str(folder), words, width=40)[:, 8:], torch.zeros(8, 32))


def test_a_student_starts_from_word_vectors_and_needs_no_encoder_once_it_is_saved(saved, files, context, tmp_path):
    text, image = str(saved.bert(tmp_path / "bert")), str(saved.vit(tmp_path / "vit"))
    splits = vqa_rad(context(files.rad_research(tmp_path / "rad")), size=16, length=8)
    task = Task(info=splits.info, kind=OutputKind.MULTICLASS, outputs=len(splits.info.classes))
    options = {"image_encoder": image, "words": 6, "width": 16, "word_vectors": text}
    student = vqa_small_film(task, **options)
    expected = word_vectors(text, splits.info.meta["vocabulary"], 6)
    assert torch.equal(student.text.embedding.weight[2:], expected)
    assert torch.equal(student.text.embedding.weight[0], torch.zeros(6))
    batch = splits.train.batch(range(8))
    student(image=batch["image"], question=batch["question"])  # the components of the image are fitted
    student.eval()
    shutil.rmtree(text)
    with pytest.raises(DataError, match="cannot be loaded"):
        vqa_small_film(task, **options)
    again = vqa_small_film(replace(task, pretrained=False), **options).eval()
    again.load_state_dict(student.state_dict())
    with torch.no_grad():
        given = {"image": batch["image"], "question": batch["question"]}
        torch.testing.assert_close(again(**given), student(**given))


def test_a_student_with_a_frozen_encoder_exports_to_onnx(saved, files, context, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    splits = vqa_rad(context(files.rad_research(tmp_path / "rad")), size=64, length=8)
    task = Task(info=splits.info, kind=OutputKind.MULTICLASS, outputs=len(splits.info.classes))
    student = vqa_small_film(task, image_encoder=str(saved.resnet(tmp_path / "resnet")), words=6, width=16)
    batch = splits.train.batch(range(8))
    given = {"image": batch["image"], "question": batch["question"]}
    student(**given)
    student.eval()
    path = tmp_path / "student.onnx"
    torch.onnx.export(
        student,
        (),
        str(path),
        kwargs={name: rows[:2] for name, rows in given.items()},
        dynamo=True,
        dynamic_shapes={name: {0: torch.export.Dim.DYNAMIC} for name in given},
        verbose=False,
    )
    found = onnxruntime.InferenceSession(str(path)).run(None, {name: rows.numpy() for name, rows in given.items()})[0]
    np.testing.assert_allclose(found, student(**given).detach().numpy(), atol=1e-4)
