"""Front ends, teachers and students: shapes, gradients, size, export, pre-trained folders."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchaudio

from stillhouse.errors import IncompatibleError, OptionError
from stillhouse.forwarding import accepted_inputs
from stillhouse.types import DataInfo, Task, TensorSpec
from stillhouse_audio_vision.frontend import (
    FLOOR,
    Cepstrum,
    LogMel,
    UnitPower,
    audio_front,
    frames,
    image_front,
    mel_settings,
)
from stillhouse_audio_vision.students import image_cnn, image_mobile_cnn, mobile_cnn
from stillhouse_audio_vision.teachers import ast, cnn, resnet, vit, wave_cnn

AUDIO = {
    "mobile-cnn": (mobile_cnn, {"width": 0.25}),
    "cnn": (cnn, {"width": 4, "blocks": 2}),
    "cnn of cepstrum": (cnn, {"width": 4, "blocks": 2, "cepstrum": 7}),
    "ast": (ast, {"width": 16, "layers": 1, "heads": 2, "patch": 4}),
}
WAVE = {"wave-cnn": (wave_cnn, {"width": 4})}
IMAGE = {
    "image-mobile-cnn": (image_mobile_cnn, {"width": 0.25}),
    "image-cnn": (image_cnn, {"width": 2}),
    "vit": (vit, {"width": 16, "layers": 1, "heads": 2, "patch": 2}),
    "resnet": (resnet, {"depth": 10}),
}


def made(name: str, tasks: SimpleNamespace) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    if name in AUDIO | WAVE:
        make, options = (AUDIO | WAVE)[name]
        return make(tasks.audio(), **options), {"waveform": torch.randn(4, 2000)}
    make, options = IMAGE[name]
    return make(tasks.image(), **options), {"image": torch.rand(4, 1, 8, 8)}


@pytest.mark.parametrize("name", [*AUDIO, *WAVE, *IMAGE])
def test_each_model_predicts_learns_and_does_not_mix_rows(name, tasks):
    model, batch = made(name, tasks)
    model(**batch).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
    model.eval()
    with torch.no_grad():
        whole = model(**batch)
        alone = model(**{key: value[1:2] for key, value in batch.items()})
    assert whole.shape == (4, 5)
    torch.testing.assert_close(whole[1:2], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("make", [mobile_cnn, image_mobile_cnn])
def test_students_come_in_several_widths(make, tasks):
    task = tasks.audio() if make is mobile_cnn else tasks.image()
    sizes = [sum(each.numel() for each in make(task, width=width).parameters()) for width in (0.25, 0.5, 1.0, 2.0)]
    assert sizes == sorted(set(sizes))
    assert sizes[0] < 5_000 < 50_000 < sizes[-1]


@pytest.mark.parametrize("name", ["mobile-cnn", "image-mobile-cnn", "image-cnn"])
def test_students_export_to_onnx_from_the_raw_input(name, tasks, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, batch = made(name, tasks)
    model.eval()
    path = tmp_path / "student.onnx"
    entry = next(iter(batch))
    torch.onnx.export(
        model,
        (),
        str(path),
        kwargs={entry: batch[entry][:2]},
        dynamo=True,
        dynamic_shapes={entry: {0: torch.export.Dim.DYNAMIC}},
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path))
    for rows in (1, 3):
        value = torch.rand(rows, *batch[entry].shape[1:])
        got = session.run(None, {entry: value.numpy()})[0]
        np.testing.assert_allclose(got, model(**{entry: value}).detach().numpy(), atol=1e-4, rtol=1e-3)


def test_the_spectrogram_is_that_of_an_independent_computation():
    settings = mel_settings(8000, 16, 12.5)
    assert settings == {"rate": 8000, "fft": 256, "hop": 100, "mels": 16}
    waveform = torch.randn(1, 1000)
    got = LogMel(**settings)(5.0 * waveform)[0].numpy()
    scaled = waveform[0].double().numpy()
    scaled = np.pad(scaled / np.sqrt(np.mean(scaled**2)), 128, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    starts = range(0, 1001, 100)
    power = np.array([np.abs(np.fft.rfft(scaled[at : at + 256] * window)) ** 2 for at in starts]).T
    banks = torchaudio.functional.melscale_fbanks(129, 0.0, 4000.0, 16, 8000).numpy().T
    np.testing.assert_allclose(got, np.log(banks @ power / np.sum(window**2) + FLOOR), atol=1e-3)


def test_the_cepstrum_is_the_cosine_transform_of_the_bands():
    scipy = pytest.importorskip("scipy.fft")
    spectrogram = torch.randn(2, 16, 5)
    got = Cepstrum(16, 7).eval()(spectrogram)
    wanted = scipy.dct(spectrogram.numpy(), axis=1, norm="ortho")[:, :7]
    np.testing.assert_allclose(got[:, 0].numpy(), wanted, atol=1e-4)


def test_loudness_does_not_count_and_silence_is_finite():
    front = LogMel(**mel_settings(8000, 16, 12.5))
    waveform = torch.randn(1, 2000)
    torch.testing.assert_close(front(waveform), front(0.1 * waveform), atol=1e-3, rtol=1e-3)
    assert torch.isfinite(front(torch.zeros(1, 2000))).all()
    torch.testing.assert_close(UnitPower()(waveform), UnitPower()(0.1 * waveform), atol=1e-3, rtol=1e-3)
    assert torch.isfinite(UnitPower()(torch.zeros(1, 2000))).all()


@pytest.mark.parametrize("name", list(AUDIO))
def test_a_cached_spectrogram_gives_the_same_prediction(name, tasks):
    make, options = AUDIO[name]
    task = tasks.audio()
    model = make(task, **options).eval()
    waveform = torch.randn(3, 2000)
    spectrogram = LogMel(**task.info.meta["log_mel"])(waveform)
    cached = DataInfo(
        inputs={"spectrogram": TensorSpec(tuple(spectrogram.shape[1:]))}, classes=task.info.classes, meta=task.info.meta
    )
    assert frames(cached) == frames(task.info) == tuple(spectrogram.shape[1:])
    other = make(Task(info=cached, kind=task.kind, outputs=5), **options).eval()
    for part, layers in other.named_children():  # the front end has one layer less, and nothing that learns
        if part != "front":
            layers.load_state_dict(dict(model.named_children())[part].state_dict())
    assert accepted_inputs(other, cached) == ("spectrogram",)
    torch.testing.assert_close(other(spectrogram=spectrogram), model(waveform=waveform), atol=1e-4, rtol=1e-3)


def test_inputs_of_the_wrong_kind_are_refused(tasks):
    with pytest.raises(IncompatibleError, match="takes sound"):
        audio_front(tasks.image().info)
    with pytest.raises(IncompatibleError, match="takes sound"):
        cnn(tasks.image())
    with pytest.raises(IncompatibleError, match="takes waveforms"):
        wave_cnn(tasks.image())
    with pytest.raises(IncompatibleError, match="takes images"):
        image_front(tasks.audio().info)


@pytest.mark.parametrize(
    ("make", "task", "options", "message"),
    [
        (mobile_cnn, "audio", {"width": 0.0}, "width is 0.0"),
        (image_mobile_cnn, "image", {"width": 9.0}, "width is 9.0"),
        (image_cnn, "image", {"blocks": 0}, "blocks is 0"),
        (cnn, "audio", {"dropout": 1.0}, "dropout is 1.0"),
        (cnn, "audio", {"cepstrum": 17}, "cepstrum is 17"),
        (wave_cnn, "audio", {"width": 0}, "width is 0"),
        (resnet, "image", {"dropout": -1.0}, "dropout is -1.0"),
        (ast, "audio", {"width": 10, "heads": 4}, "not a multiple"),
        (ast, "audio", {"patch": 99}, "patch is 99"),
        (vit, "image", {"width": 10, "heads": 4}, "not a multiple"),
        (vit, "image", {"pretrained": "./no/such/folder"}, "cannot be loaded"),
    ],
)
def test_options_out_of_range_are_refused(make, task, options, message, tasks):
    with pytest.raises(OptionError, match=message):
        make(getattr(tasks, task)(), **options)


def test_a_pretrained_vit_folder_is_loaded_and_takes_other_images(tmp_path, tasks):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    source = ViTForImageClassification(config)
    source.save_pretrained(tmp_path)
    model = vit(tasks.image(), pretrained=str(tmp_path)).eval()
    for name, value in source.vit.state_dict().items():
        torch.testing.assert_close(model.model.vit.state_dict()[name], value)
    assert model(image=torch.rand(2, 1, 8, 8)).shape == (2, 5)


def test_a_pretrained_ast_folder_is_loaded_and_fed_as_it_was_trained(tmp_path, tasks):
    from transformers import ASTConfig, ASTForAudioClassification

    config = ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=40,
        num_mel_bins=32,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
    )
    ASTForAudioClassification(config).save_pretrained(tmp_path)
    task = tasks.audio()
    model = ast(task, pretrained=str(tmp_path)).eval()
    assert model(waveform=torch.randn(2, 2000)).shape == (2, 5)
    cached = DataInfo(inputs={"spectrogram": TensorSpec((16, 21))}, classes=task.info.classes, meta=task.info.meta)
    with pytest.raises(OptionError, match="takes waveforms"):
        ast(Task(info=cached, kind=task.kind, outputs=5), pretrained=str(tmp_path))


def test_larger_images_get_a_stem_with_a_stride(tasks):
    for make in (resnet, image_mobile_cnn):
        large = make(tasks.image(shape=(3, 64, 64)))
        small = make(tasks.image(shape=(3, 32, 32)))
        strides = [
            next(each.stride for each in model.features.modules() if hasattr(each, "stride"))
            for model in (large, small)
        ]
        assert strides == [(2, 2), (1, 1)]
        assert large.eval()(image=torch.rand(1, 3, 64, 64)).shape == (1, 5)
