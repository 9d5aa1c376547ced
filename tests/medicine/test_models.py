"""Teachers and students: shapes, gradients, taps, sizes, saving, export."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from stillhouse.errors import DataError, IncompatibleError, MissingDependencyError, OptionError
from stillhouse.forwarding import accepted_inputs
from stillhouse.kinds import OutputKind
from stillhouse.taps import Taps
from stillhouse_medicine import students, teachers
from stillhouse_medicine.augment import Augment, augmentation

VQA = {
    "vqa-coattention": (
        teachers.vqa_coattention,
        {"image_width": 4, "width": 16, "layers": 1, "text_layers": 1, "attention_heads": 2},
    ),
    "vqa-torchvision": (
        teachers.vqa_coattention,
        {"image_encoder": "torchvision:squeezenet1_1", "width": 16, "layers": 1, "text_layers": 1},
    ),
    "vqa-film": (teachers.vqa_film, {"image_width": 4, "width": 16}),
    "vqa-small": (students.vqa_small, {"channels": 4, "words": 8, "width": 16}),
    "vqa-small-film": (students.vqa_small_film, {"channels": 4, "words": 8, "width": 16, "components": 16}),
    "question-only": (students.question_only, {"words": 8, "width": 16}),
}
IMAGE = {
    "resnet": (teachers.resnet, {"width": 4, "blocks": 1}),
    "torchvision": (teachers.torchvision_classifier, {"model": "squeezenet1_1"}),
    "cnn": (students.cnn, {"width": 4}),
}


def made(name: str, tasks):
    """A model, the inputs it takes of a batch of 4, and its outputs."""
    torch.manual_seed(0)
    if name in VQA:
        make, options = VQA[name]
        question = torch.randint(2, 30, (4, 8))
        question[:, 5:] = 0
        model, batch = make(tasks.vqa(size=64), **options), {"image": torch.rand(4, 1, 64, 64), "question": question}
        task = tasks.vqa(size=64)
    else:
        make, options = IMAGE[name]
        task = tasks.image(size=64)
        model, batch = make(task, **options), {"image": torch.rand(4, 1, 64, 64)}
    inputs = accepted_inputs(model, task.info)
    return model, {each: batch[each] for each in inputs}, task.outputs


@pytest.mark.parametrize("name", [*VQA, *IMAGE])
def test_each_model_predicts_learns_and_does_not_mix_rows(name, tasks):
    model, batch, outputs = made(name, tasks)
    model(**batch).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
    model.eval()
    with torch.no_grad():
        whole = model(**batch)
        alone = model(**{key: value[1:2] for key, value in batch.items()})
    assert whole.shape == (4, outputs)
    torch.testing.assert_close(whole[1:2], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["vqa-coattention", "vqa-small", "vqa-small-film"])
def test_teacher_and_student_offer_the_same_levels_to_compare(name, tasks):
    model, batch, _ = made(name, tasks)
    levels = ("image_features", "question_features", "fused")
    with Taps(model, levels) as taps, torch.no_grad():
        model(**batch)
        seen = taps.take()
    assert {level: tuple(feature.shape) for level, feature in seen.items()} == dict.fromkeys(levels, (4, 16))


@pytest.mark.parametrize("name", ["vqa-coattention", "vqa-film", "vqa-small", "vqa-small-film", "question-only"])
def test_padding_of_a_question_counts_for_nothing(name, tasks):
    model, batch, _ = made(name, tasks)
    model.eval()
    with torch.no_grad():
        whole = model(**batch)
        cut = model(**{**batch, "question": batch["question"][:, :6]})  # one padding word is left
        empty = model(**{**batch, "question": torch.zeros(4, 8, dtype=torch.int64)})
    torch.testing.assert_close(whole, cut, atol=1e-4, rtol=1e-3)
    assert empty.isfinite().all()


def test_the_control_does_not_see_the_image(tasks):
    model = students.question_only(tasks.vqa())
    assert accepted_inputs(model, tasks.vqa().info) == ("question",)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("make", [teachers.unet, students.unet])
def test_a_unet_gives_each_pixel_a_class(make, depth, tasks):
    task = tasks.image(size=16, kind=OutputKind.SEGMENTATION)
    model = make(task, width=4, depth=depth)
    prediction = model(image=torch.rand(2, 1, 16, 16))
    assert prediction.shape == (2, 3, 16, 16)
    prediction.square().mean().backward()
    assert all(each.grad.isfinite().all() for each in model.parameters())
    with Taps(model, ("bottom", "last")) as taps:
        model(image=torch.rand(2, 1, 16, 16))
        seen = taps.take()
    assert seen["bottom"].shape == (2, 4 * 2**depth, 16 // 2**depth, 16 // 2**depth)
    assert seen["last"].shape == (2, 4, 16, 16)
    with pytest.raises(OptionError, match="cannot be halved"):
        make(task, depth=5)


def parameters(model: torch.nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def test_students_are_a_small_part_of_their_teachers(tasks):
    image, vqa = tasks.image(), tasks.vqa(size=64)
    assert 600_000 < parameters(teachers.resnet(image)) < 800_000
    assert parameters(students.cnn(image)) < 4_000
    assert parameters(teachers.vqa_coattention(vqa)) > 7.5 * parameters(students.vqa_small(vqa))
    sizes = [parameters(students.cnn(image, width=width)) for width in (4, 8, 16, 32)]
    assert sizes == sorted(set(sizes))
    seg = tasks.image(size=32, kind=OutputKind.SEGMENTATION)
    assert parameters(teachers.unet(seg)) > 20 * parameters(students.unet(seg))


@pytest.mark.parametrize("name", ["vqa-small", "vqa-small-film", "cnn"])
def test_students_export_to_onnx_with_equal_predictions(name, tasks, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, batch, _ = made(name, tasks)
    model.eval()
    path = tmp_path / "student.onnx"
    torch.onnx.export(
        model,
        (),
        str(path),
        kwargs={key: value[:2] for key, value in batch.items()},
        dynamo=True,
        dynamic_shapes={key: {0: torch.export.Dim.DYNAMIC} for key in batch},
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path))
    for rows in (1, 4):
        given = {key: value[:rows] for key, value in batch.items()}
        got = session.run(None, {key: value.numpy() for key, value in given.items()})[0]
        np.testing.assert_allclose(got, model(**given).detach().numpy(), atol=1e-4)


def test_vqa_models_refuse_data_without_questions(tasks):
    for make in (students.vqa_small, students.question_only, teachers.vqa_coattention, teachers.vqa_film):
        with pytest.raises(IncompatibleError, match="no questions"):
            make(tasks.image())


def test_torchvision_models_are_named_and_read_weights_from_a_file(tasks, tmp_path):
    from safetensors.torch import save_file
    from torchvision.models import squeezenet1_1

    with pytest.raises(OptionError, match="no model 'resnet81'") as caught:
        teachers.torchvision_classifier(tasks.image(), model="resnet81")
    assert "did you mean" in caught.value.fix
    with pytest.raises(OptionError, match="convolutional part"):
        teachers.torchvision_classifier(tasks.image(), model="vit_b_16")
    with pytest.raises(OptionError, match="1 or 3 channels"):
        teachers.vqa_coattention(tasks.vqa(channels=5), image_encoder="torchvision:resnet18")
    source = squeezenet1_1()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    torch.save(source.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        model = teachers.torchvision_classifier(
            tasks.image(size=64), model="squeezenet1_1", weights=str(tmp_path / name)
        )
        assert torch.equal(model.body.body[0].weight, source.features[0].weight)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:1000])
    for name in ("other.pth", "broken.pth", "absent.pth", "absent.safetensors"):
        with pytest.raises(DataError, match="cannot be used") as caught:
            teachers.torchvision_classifier(tasks.image(), model="squeezenet1_1", weights=str(tmp_path / name))
        assert name in str(caught.value)


def test_an_encoder_of_a_package_that_is_not_installed_names_it(tasks, monkeypatch):
    import importlib

    genuine = importlib.import_module

    def without(name: str, *rest):
        if name.startswith("efficientnet"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return genuine(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingDependencyError, match="efficientnet_lite_pytorch") as caught:
        teachers.vqa_coattention(tasks.vqa(), image_encoder="efficientnet-lite0")
    assert "pip install" in caught.value.fix


@pytest.mark.parametrize("options", [{"shift": 0.2}, {"rotate": 30}, {"scale": 0.3}, {"contrast": 0.5}, {"noise": 0.1}])
def test_each_augmentation_changes_images_within_their_range(options):
    images = torch.rand(6, 1, 16, 16)
    torch.manual_seed(0)
    changed, _ = Augment(**options)(images)
    torch.manual_seed(0)
    again, _ = Augment(**options)(images)
    assert changed.shape == images.shape
    assert (float(changed.min()), float(changed.max())) >= (0.0, 0.0)
    assert float(changed.max()) <= 1.0
    assert not torch.allclose(changed, images, atol=1e-2)
    assert torch.equal(changed, again)


def test_only_asked_for_are_images_mirrored():
    images = torch.rand(1, 1, 8, 8).expand(40, -1, -1, -1)
    mirrored = Augment(mirror=True)(images)[0]
    same = (mirrored - images).abs().amax(dim=(1, 2, 3)) < 1e-4
    turned = (mirrored - images.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (same ^ turned).all()
    assert 5 < int(turned.sum()) < 35
    assert not augmentation(None).active
    assert torch.equal(augmentation({})(images)[0], images)


@pytest.mark.parametrize(("options", "words"), [({"rotat": 3}, "rotate"), ({"shift": -1}, "0 to 1")])
def test_wrong_augmentations_are_refused(options, words):
    with pytest.raises(OptionError) as caught:
        augmentation(options)
    assert words in str(caught.value)


def test_the_tfidf_control_is_that_of_scikit_learn_on_the_words(tasks):
    texts = ["is there a mass", "where is the mass", "is the heart large", "what organ is shown"] * 3
    words = {word: at for at, word in enumerate(dict.fromkeys(" ".join(texts).split()), start=2)}
    numbers = np.zeros((12, 6), dtype=np.int64)
    for row, text in enumerate(texts):
        numbers[row, : len(text.split())] = [words[word] for word in text.split()]
    target = np.array([0, 1, 0, 2] * 3)
    found = students.tfidf_logistic(tasks.vqa()).fit(numbers, target).predict_proba(numbers)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+", dtype=np.float32)
    plain = make_pipeline(vectorizer, LogisticRegression(C=10)).fit(texts, target).predict_proba(texts)
    np.testing.assert_allclose(found, plain, atol=1e-3)
    assert (found.argmax(axis=1) == target).all()
