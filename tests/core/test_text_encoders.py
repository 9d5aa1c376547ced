"""Texts from a file to a distilled student: tokenizers, encoders of Hugging Face, runs. Needs the extra ``text``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import stillhouse
from stillhouse.errors import DataError, IncompatibleError, MissingDependencyError, OptionError
from stillhouse.kinds import OutputKind
from stillhouse.methods.losses import make_terms
from stillhouse.plugins.manager import default_manager
from stillhouse.recipe.check import resolve
from stillhouse.recipe.model import Recipe
from stillhouse.taps import Taps
from stillhouse.text import TextReader, Tokenizer, text_splits
from stillhouse.text.augmenters import mask_replace
from stillhouse.text.encoders import HFEncoder, hf_encoder, hf_layers
from stillhouse.text.students import text_encoder
from stillhouse.trained import build, load
from stillhouse.training.learner import Distillation
from stillhouse.training.loss import DistillationLoss
from stillhouse.types import DataContext, Splits, Task

pytestmark = pytest.mark.plugins

ADVERBS = ("today", "again", "early", "late", "alone", "at home", "outside", "slowly", "quickly", "twice")
TEXTS = [
    f"{who} {what} {how} {number}"
    for number, how in enumerate(ADVERBS)
    for who in ("the cat", "a dog")
    for what in ("sleeps", "runs fast", "eats")
]
TARGET = [each % 3 for each in range(len(TEXTS))]
SMALL = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 32}


def splits_of(**options: Any) -> Splits:
    given: dict[str, Any] = {"classes": ("sleep", "run", "eat"), "seed": 0, "vocabulary": 120, "max_length": 12}
    return text_splits(TEXTS, TARGET, **{**given, **options})


def task_of(splits: Splits, kind: OutputKind = OutputKind.MULTICLASS) -> Task:
    return Task(info=splits.info, kind=kind, outputs=3, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder with its tokenizer, as the hub has them."""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("encoder")
    tokenizer = Tokenizer.train(TEXTS, kind="wordpiece", vocabulary=120)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        path
    )
    torch.manual_seed(5)
    BertModel(BertConfig(vocab_size=tokenizer.size, max_position_embeddings=16, **SMALL)).save_pretrained(path)
    return path


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_trained_tokenizer_is_a_function_of_the_texts(kind: str) -> None:
    made = Tokenizer.train(TEXTS, kind=kind, vocabulary=60)
    code = (
        "import json, sys; from stillhouse.text import Tokenizer; "
        f"print(json.dumps(Tokenizer.train(json.load(sys.stdin), kind='{kind}', vocabulary=60).state()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(TEXTS), capture_output=True, text=True, check=True
    )
    assert json.loads(other.stdout) == json.loads(json.dumps(made.state()))
    assert made.size <= 60
    assert made.pad == 0


def test_a_tokenizer_works_without_its_original(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    original = Tokenizer.load(str(copy))
    state = json.loads(json.dumps(original.state()))
    shutil.rmtree(copy)
    again = Tokenizer.from_state(state)
    assert again.encode(["the cat runs", "zebra"], max_length=5) == original.encode(
        ["the cat runs", "zebra"], max_length=5
    )
    assert max(map(len, again.encode(TEXTS, max_length=4))) == 4


def test_a_tokenizer_is_trained_on_training_rows_only() -> None:
    splits = splits_of(fractions={"test": 0.4, "val": 0.1})
    assert isinstance(splits.reader, TextReader)
    unseen = {token for at in range(len(splits.test)) for token in splits.test.row(at)["tokens"].tolist()}
    seen = {token for at in range(len(splits.train)) for token in splits.train.row(at)["tokens"].tolist()}
    assert set(splits.info.meta["text"]["seen"]) == seen
    assert unseen - seen <= set(range(splits.info.meta["text"]["vocabulary"])) - seen
    train = [TEXTS[at] for at in splits.train.index().tolist()]
    expected = Tokenizer.train(train, kind="wordpiece", vocabulary=120)
    assert splits.reader.tokenizer.state() == expected.state()


def test_families_and_documents_stay_in_one_split() -> None:
    texts = [f"{text} {tail}" for text in TEXTS for tail in ("indeed", "Indeed")]
    splits = text_splits(
        texts,
        [each for each in TARGET for _ in range(2)],
        classes=("a", "b", "c"),
        seed=1,
        groups=[f"document {at // 6}" for at in range(len(texts))],
        overlap=1.0,
    )
    documents = [{index // 6 for index in split.index().tolist()} for split in splits.named().values()]
    assert sum(map(len, documents)) == len(set.union(*documents)) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": 0.0}, "overlap is 0.0"),
        ({"max_length": 2}, "max_length is 2"),
        ({"vocabulary": 3}, "of 3 tokens cannot be trained"),
        ({"fractions": {"test": 0.7, "val": 0.4}}, "cannot be split"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        splits_of(**options)


def test_a_tokenizer_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match=r"package 'torch' has no folder 'nowhere'"):
        splits_of(tokenizer="torch:nowhere")
    with pytest.raises(MissingDependencyError, match="not installed") as error:
        splits_of(tokenizer="absent_package:model")
    assert error.value.fix == "pip install absent-package"


def test_without_the_extra_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("transformers", "tokenizers"):
        monkeypatch.setitem(sys.modules, package, None)
    component = default_manager().registry.get("teacher", "core/hf-encoder")
    with pytest.raises(MissingDependencyError, match="needs the package 'transformers'") as error:
        component.load()
    assert error.value.fix == "pip install 'stillhouse[text]'"


def test_pretrained_weights_are_those_of_the_folder(folder: Path) -> None:
    from transformers import AutoModel

    splits = splits_of(tokenizer=str(folder))
    model = hf_encoder(task_of(splits), pretrained=str(folder), dropout=0.0).eval()
    batch = splits.train.batch([0, 1, 2, 3])
    with torch.no_grad():
        reference = AutoModel.from_pretrained(folder).eval()
        states = reference(input_ids=batch["tokens"], attention_mask=batch["mask"].long()).last_hidden_state
        kept = batch["mask"].unsqueeze(2).float()
        pooled = (states * kept).sum(1) / kept.sum(1)
        expected = pooled @ model.output.weight.T + model.output.bias
        assert torch.allclose(model(batch["tokens"], batch["mask"]), expected, atol=1e-5)


@pytest.mark.parametrize("make", [hf_encoder, hf_layers, text_encoder])
def test_padding_changes_nothing(make: Any) -> None:
    splits = splits_of()
    torch.manual_seed(0)
    model = make(task_of(splits)).eval()
    batch = splits.train.batch(range(8))
    with torch.no_grad():
        whole = model(batch["tokens"], batch["mask"])
        alone = torch.cat([model(**{n: splits.train.batch([at])[n] for n in ("tokens", "mask")}) for at in range(8)])
    assert len(set(batch["mask"].sum(1).tolist())) > 1
    assert torch.allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "electra", "distilbert", "mobilebert", "roberta", "albert"])
def test_encoders_of_many_kinds_give_scores_to_tap(model_type: str) -> None:
    splits = splits_of()
    config = {"model_type": model_type, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    config |= {"distilbert": {"dim": 24}, "mobilebert": {"intra_bottleneck_size": 12}}.get(model_type, {})
    model = hf_encoder(task_of(splits), config=config).eval()
    path = next(name for name, _ in model.named_modules() if name.endswith(".scores"))
    batch = splits.train.batch(range(4))
    inputs = {name: batch[name] for name in ("tokens", "mask")}
    with torch.no_grad():
        fused = model(**inputs)
        with Taps(model, [path]) as taps:
            tapped = model(**inputs)
    width = batch["tokens"].shape[1]
    assert taps.features[path].shape[0] == 4
    assert taps.features[path].shape[-2:] == (width, width)
    assert torch.allclose(fused, tapped, atol=1e-5)


def test_every_second_layer_is_taken(folder: Path) -> None:
    splits = splits_of(tokenizer=str(folder))
    task = task_of(splits)
    whole = hf_encoder(task, pretrained=str(folder)).state_dict()
    half = hf_layers(task, pretrained=str(folder), every=2).state_dict()
    chosen = hf_layers(task, pretrained=str(folder), layers=(3, 3)).state_dict()
    name = "encoder.encoder.layer.{}.output.dense.weight"
    assert torch.equal(half[name.format(1)], whole[name.format(2)])
    assert torch.equal(chosen[name.format(1)], whole[name.format(3)])
    assert name.format(2) not in half
    with pytest.raises(OptionError, match="has 4 layers, and layers are"):
        hf_layers(task, pretrained=str(folder), layers=(4,))


def test_an_own_vocabulary_keeps_the_most_frequent_tokens(folder: Path) -> None:
    splits = splits_of(tokenizer=str(folder))
    task = task_of(splits)
    model = hf_layers(task, pretrained=str(folder), vocabulary=10)
    seen = splits.info.meta["text"]["seen"]
    whole = hf_encoder(task, pretrained=str(folder)).encoder.get_input_embeddings().weight
    assert model.encoder.get_input_embeddings().weight.shape == (10, 24)
    rare = torch.tensor([[seen[0], seen[-1], 0]])
    assert model.vocabulary(rare).tolist() == [[2, 1, 0]]
    assert torch.equal(model.encoder.get_input_embeddings().weight[2], whole[seen[0]])


def test_frozen_layers_do_not_learn(folder: Path) -> None:
    splits = splits_of(tokenizer=str(folder))
    model = hf_encoder(task_of(splits), pretrained=str(folder), frozen=2)
    resting = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[1] for name in resting} == {"embeddings", "encoder"}
    assert {name.split(".")[3] for name in resting if ".layer." in name} == {"0", "1"}
    with pytest.raises(OptionError, match="frozen is 5"):
        hf_encoder(task_of(splits), pretrained=str(folder), frozen=5)


def test_lora_trains_adapters_alone_and_merges_them(folder: Path) -> None:
    pytest.importorskip("peft")
    splits = splits_of(tokenizer=str(folder))
    plain = hf_encoder(task_of(splits), pretrained=str(folder)).eval()
    model = hf_encoder(task_of(splits), pretrained=str(folder), lora_rank=2).eval()
    model.output.load_state_dict(plain.output.state_dict())
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in learning if "lora_" not in name} == {"output.weight", "output.bias"}
    batch = splits.train.batch(range(4))
    inputs = {name: batch[name] for name in ("tokens", "mask")}
    with torch.no_grad():
        assert torch.equal(model(**inputs), plain(**inputs))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
        changed = model(**inputs)
        model.merge_adapters()
        assert torch.allclose(model(**inputs), changed, atol=1e-5)
    assert not torch.allclose(changed, plain(**inputs), atol=1e-2)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_models_by_lora_are_opened_without_peft(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    recipe = {key: value for key, value in RECIPE.items() if key not in ("method", "objectives", "controls")}
    rows = [f"{text},{label}" for text, label in zip(TEXTS, TARGET, strict=True)]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]))
    columns = {"path": str(tmp_path / "texts.csv"), "text": "text", "label": "label"}
    recipe["dataset"] = {"use": "core/texts", **columns, "tokenizer": str(folder), "max_length": 12}
    recipe["student"] = {"use": "core/hf-encoder", "pretrained": str(folder), "lora_rank": 2}
    recipe["teacher"] = recipe["student"]
    stillhouse.run(recipe, out=tmp_path / "run")
    trained = load_file(tmp_path / "run/teacher/member-0/model.safetensors")
    assert not [name for name in trained if "lora" in name]
    query = "encoder.encoder.layer.0.attention.self.query.weight"
    original = load_file(folder / "model.safetensors")
    assert not torch.equal(trained[query], original[query.removeprefix("encoder.")])
    assert torch.equal(
        trained["encoder.embeddings.word_embeddings.weight"], original["embeddings.word_embeddings.weight"]
    )
    monkeypatch.setitem(sys.modules, "peft", None)
    file = tmp_path / "new.txt"
    file.write_text("the pump leaks oil\n")
    assert stillhouse.predict(tmp_path / "run", file)["row"] == [1]
    with pytest.raises(MissingDependencyError, match="lora_rank needs the package 'peft'") as error:
        stillhouse.run(recipe, out=tmp_path / "other", overrides=["data_seed=1"])
    assert "stillhouse[lora]" in error.value.fix


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lora_rank": 2}, "without 'pretrained'"),
        ({"lora_rank": 2, "frozen": 1}, "and frozen 1"),
        ({"lora_rank": -1, "pretrained": "folder"}, "lora_rank is -1"),
    ],
)
def test_lora_that_makes_no_sense_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    options = {name: str(folder) if value == "folder" else value for name, value in options.items()}
    with pytest.raises(OptionError, match=message):
        hf_encoder(task_of(splits_of(tokenizer=str(folder))), **options)


def test_vectors_to_start_from_keep_their_neighbours(folder: Path) -> None:
    splits = splits_of(tokenizer=str(folder))
    model = text_encoder(task_of(splits), start=str(folder), embedding=24, vocabulary=40)
    whole = hf_encoder(task_of(splits), pretrained=str(folder)).encoder.get_input_embeddings().weight
    given = whole[torch.tensor(model.vocabulary.tokens)][1:].detach()
    made = model.embeddings.tokens.weight[1:].detach()
    near, far = torch.cdist(given, given), torch.cdist(made, made)
    assert torch.corrcoef(torch.stack([near.flatten(), far.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize("name", ["teacher:core/hf-encoder", "student:core/hf-layers", "student:core/text-encoder"])
def test_a_saved_model_needs_no_original(folder: Path, tmp_path: Path, name: str) -> None:
    kind, _, component_id = name.partition(":")
    registry = default_manager().registry
    copy = tmp_path / "original"
    shutil.copytree(folder, copy)
    splits = splits_of(tokenizer=str(copy))
    option = "start" if component_id == "core/text-encoder" else "pretrained"
    trained = build(registry.get(kind, component_id), {option: str(copy), "vocabulary": 20}, task_of(splits))
    trained.model.eval()
    trained.save(tmp_path / "saved")
    shutil.rmtree(copy)
    assert "original" not in json.dumps(
        json.loads((tmp_path / "saved/model.json").read_text())["options"].get("config")
    )
    again = load(tmp_path / "saved", registry, splits.info)
    batch = splits.train.batch(range(3))
    assert torch.equal(again.call(batch), trained.call(batch))


def test_an_encoder_with_fewer_tokens_than_the_dataset_is_refused(folder: Path) -> None:
    splits = splits_of()
    info = replace(splits.info, meta={"text": {**splits.info.meta["text"], "vocabulary": 5000}})
    with pytest.raises(IncompatibleError, match="the dataset's tokenizer has 5000 tokens"):
        hf_encoder(replace(task_of(splits), info=info), pretrained=str(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "no-such"}, "no encoder can be made"),
        ({"hidden_size": 24}, "no encoder can be made"),
        ({"model_type": "bert", "hidden_size": 25, "num_attention_heads": 3}, "no encoder can be made"),
        ({"model_type": "bert", "max_position_embeddings": 4}, "less than the 12 tokens"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        hf_encoder(task_of(splits_of()), config=config)


def test_a_dataset_without_texts_is_refused() -> None:
    info = replace(splits_of().info, inputs={}, meta={})
    with pytest.raises(IncompatibleError, match="takes tokens with a mask"):
        text_encoder(Task(info=info, kind=OutputKind.MULTICLASS, outputs=3))


def test_every_token_is_predicted_where_the_head_wants_it() -> None:
    splits = splits_of()
    batch = splits.train.batch([0, 1])
    model = hf_encoder(task_of(splits, OutputKind.SEQUENCE))
    assert isinstance(model, HFEncoder)
    assert model(batch["tokens"], batch["mask"]).shape == (*batch["tokens"].shape, 3)


def test_masked_and_replaced_texts_keep_their_special_tokens() -> None:
    splits = splits_of()
    facts = splits.info.meta["text"]
    made = mask_replace(mask=0.3, replace=0.3)(splits.train, splits.info, 200, 7)
    again = mask_replace(mask=0.3, replace=0.3)(splits.train, splits.info, 200, 7)
    assert made.fingerprint() == again.fingerprint()
    originals = {tuple(splits.train.row(at)["tokens"].tolist()) for at in range(len(splits.train))}
    shares: list[float] = []
    for at in range(200):
        tokens = made.row(at)["tokens"].tolist()
        assert (tokens[0], tokens[-1]) == (2, 3)
        assert {len(tokens)} <= {len(row) for row in originals}
        assert set(tokens) <= {*facts["seen"], facts["mask"]}
        shares.append(tokens.count(facts["mask"]) / (len(tokens) - 2))
    assert 0.2 < sum(shares) / 200 < 0.4
    with pytest.raises(ValueError, match="together above 0"):
        mask_replace(mask=0.0, replace=0.0)


def test_a_student_learns_from_texts_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    recipe = {key: value for key, value in RECIPE.items() if key not in ("method", "objectives", "controls")}
    recipe["extra_rows"] = {"use": "core/mask-replace", "per_row": 2}
    result = stillhouse.run(recipe, out=tmp_path / "run")
    assert result.summary["extra_rows"]["rows"] == 2 * result.summary["dataset"]["rows"]["train"]


RECIPE: dict[str, Any] = {
    "head": "core/multiclass",
    "dataset": {"use": "core/synthetic-text", "rows": 120},
    "teacher": {"use": "core/hf-encoder"},
    "student": {"use": "core/text-encoder", "width": 16, "heads": 4, "inner": 16, "vocabulary": 60, "embedding": 8},
    "controls": ["core/tfidf-logistic"],
    "method": "core/staged",
    "objectives": {
        "alpha": 0.3,
        "soft": [
            {"use": "hints", "student": "embeddings", "teacher": "encoder.embeddings"},
            {
                "use": "attention-scores",
                "student": "layers.1.attention.scores",
                "teacher": "encoder.encoder.layer.1.attention.self.scores",
            },
            {"use": "feature-maps", "student": "layers.0", "teacher": "encoder.encoder.layer.0"},
            {"use": "cosine-embedding", "student": "layers.1", "teacher": "encoder.encoder.layer.1"},
            {"use": "soft", "temperature": 2},
        ],
    },
    "train": {"teacher": {"epochs": 1, "batch_size": 16}, "student": {"epochs": 2, "batch_size": 16}},
    "evaluate": {"latency_samples": 5, "throughput_batch": 4},
    "seeds": [0],
}


def test_padding_masks_reach_terms_of_positions_and_no_others() -> None:
    resolved = resolve(Recipe.model_validate(RECIPE), default_manager().registry)
    splits = splits_of()
    student, teacher = (
        build(bound.component, bound.options, task_of(splits)) for bound in (resolved.student, resolved.teachers[0])
    )
    terms = make_terms(resolved.terms, splits, student, teacher, torch.device("cpu"))
    assert [term.extras for term in terms] == [("mask",)] * 4 + [()]
    batch = splits.train.batch(range(6))
    assert len(set(batch["mask"].sum(1).tolist())) > 1
    wide = {**batch, "mask": torch.cat([batch["mask"], batch["mask"].new_zeros(6, 3)], dim=1)}
    wide["tokens"] = torch.cat([batch["tokens"], batch["tokens"].new_zeros(6, 3)], dim=1)
    student.model.eval()
    loss = DistillationLoss(None, terms, 0.0)
    values = []
    for each in (batch, wide):
        learner = Distillation(student.model, student.inputs, loss, teacher.source(taps=loss.teacher_taps))
        with torch.no_grad():
            values.append(loss(learner.outputs(each), learner.teacher(each), each)[1])
    for name, value in values[0].items():
        assert float(value["raw"]) == pytest.approx(float(values[1][name]["raw"]), rel=1e-4), name


def test_a_run_from_texts_to_predictions_and_back_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    first = stillhouse.run(RECIPE, out=tmp_path / "first")
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "other"))
    stillhouse.run(RECIPE, out=tmp_path / "second")
    weights = [(tmp_path / run / "student/seed-0/model.safetensors").read_bytes() for run in ("first", "second")]
    assert weights[0] == weights[1]
    assert set(first.summary["controls"]) == {"core/tfidf-logistic"}
    history = [json.loads(line) for line in (tmp_path / "first/metrics.jsonl").read_text().splitlines()]
    terms = next(record["train"]["terms"] for record in history if record.get("phase") == "stage-1")
    assert {name for name, value in terms.items() if value["raw"] > 0} >= {
        "core/hints",
        "core/attention-scores",
        "core/feature-maps",
        "core/cosine-embedding",
    }
    file = tmp_path / "new.txt"
    file.write_text("the pump leaks oil\nour valve works fine again\n")
    found = stillhouse.predict(tmp_path / "first", file)
    assert found["row"] == [1, 2]
    assert set(found["label"]) <= {"good", "bad", "neutral"}


def test_a_student_of_texts_is_exported_for_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    recipe = {key: value for key, value in RECIPE.items() if key not in ("method", "objectives", "controls")}
    recipe["student"] = {"use": "core/hf-layers"}
    stillhouse.run(recipe, out=tmp_path / "run", stop_after="student")
    shutil.copy(tmp_path / "run/student/seed-0/history.jsonl", tmp_path)
    path = stillhouse.export(tmp_path / "run", format="torch", seed=0)
    program = torch.export.load(path).module()
    for width in (3, 11):
        tokens = torch.ones(2, width, dtype=torch.int64)
        assert program(tokens, tokens.bool()).shape == (2, 3)


def test_tfidf_learns_from_labels_and_from_a_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    recipe = {key: value for key, value in RECIPE.items() if key not in ("method", "objectives", "controls")}
    recipe |= {"student": "core/tfidf-logistic", "dataset": {"use": "core/synthetic-text", "rows": 300}}
    result = stillhouse.run(recipe, out=tmp_path / "run")
    # Half of its targets are those of a teacher that has learned nothing in one epoch.
    assert result.summary["baseline"]["mean"] > 0.6


def test_own_texts_from_a_table(tmp_path: Path) -> None:
    import pandas as pd

    table = pd.DataFrame({"text": TEXTS, "label": [("x", "y", "z")[each] for each in TARGET], "by": range(len(TEXTS))})
    table.to_json(tmp_path / "own.jsonl", orient="records", lines=True)
    load_texts = default_manager().registry.get("dataset", "core/texts").load()
    context = DataContext(root=tmp_path, base=tmp_path)
    splits = load_texts(context, path=Path("own.jsonl"), group="by", overlap=1.0)
    assert splits.info.classes == ("x", "y", "z")
    assert sum(map(len, splits.named().values())) == len(TEXTS)
    table.assign(label="x").to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(DataError, match="all rows have the label 'x'"):
        load_texts(context, path=Path("one.csv"))
