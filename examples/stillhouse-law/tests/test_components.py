"""What the components do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import stillhouse
import torch
from stillhouse.errors import DataError, OptionError
from stillhouse.testing import run_tiny
from stillhouse.text import TextReader
from stillhouse.types import DataContext, DataInfo, Task

from stillhouse_law.datasets import documents, facts_sim, judgments_sim
from stillhouse_law.heads import Outcome
from stillhouse_law.simulator import OUTCOMES, decide, make_case
from stillhouse_law.students import BagOfWords, Phrases
from stillhouse_law.text import FactsReader, Vocabulary

SAMPLE = Path(__file__).parent / "documents.csv"


@pytest.fixture
def context(tmp_path: Path) -> DataContext:
    return DataContext(root=tmp_path, base=tmp_path)


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ("--po", "settled"),
        ("----", "dismissed"),
        ("i---", "dismissed"),
        ("ip--", "allowed"),
        ("ipa-", "partly allowed"),
    ],
)
def test_rules_of_the_court(facts: str, outcome: str) -> None:
    names = ("in_time", "proven", "paid", "offered")
    assert decide(**{name: letter != "-" for name, letter in zip(names, facts, strict=True)})[0] == outcome


def test_facts_do_not_name_the_outcome() -> None:
    draw = random.Random(0)
    cases = [make_case(draw) for _ in range(200)]
    assert {case.outcome for case in cases} == set(range(len(OUTCOMES)))
    assert not [case for case in cases if OUTCOMES[case.outcome] in case.facts.lower()]


def test_only_training_words_are_known(context: DataContext) -> None:
    splits = judgments_sim(context, cases=60, unlabelled=0)
    assert splits.unlabelled is None
    assert int(splits.train.columns(["input_ids"])["input_ids"].max()) < splits.info.meta["vocabulary"]
    assert set(splits.info.inputs) == {"input_ids", "attention_mask", "reasons_ids", "reasons_mask"}
    with pytest.raises(OptionError, match="noise"):
        judgments_sim(context, noise=1.0)


def test_words_get_numbers_and_a_mask() -> None:
    vocabulary = Vocabulary.of(["The claim, the claim!"], length=3)
    encoded = vocabulary.encode(["The CLAIM was paid", "claim", ""])
    assert encoded["input_ids"].tolist() == [[3, 2, 1], [2, 0, 0], [1, 0, 0]]
    assert encoded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_new_cases_and_documents_are_read_as_those_of_the_training_rows(context: DataContext, tmp_path: Path) -> None:
    facts = tmp_path / "facts.txt"
    facts.write_text("The tenant sued the owner.\nThe claim was paid.\n")
    cases = judgments_sim(context, cases=60, unlabelled=0)
    assert isinstance(cases.reader, FactsReader)
    rows, texts = FactsReader.from_state(cases.reader.state()).read(facts)
    assert len(rows) == len(texts["text"]) == 2
    splits = documents(context, path=SAMPLE, length=16)
    assert splits.info.classes == ("employment", "sale", "tenancy")
    assert isinstance(splits.reader, TextReader)
    rows, texts = TextReader.from_state(splits.reader.state()).read(SAMPLE)
    assert len(rows) == len(texts["row"]) == sum(len(split) for split in splits.named().values())


def test_no_case_of_facts_is_in_two_splits(context: DataContext) -> None:
    splits = facts_sim(context, cases=300)
    rows = [{tuple(split.row(at)["tokens"].tolist()) for at in range(len(split))} for split in splits.named().values()]
    assert sum(map(len, rows)) == len(set.union(*rows))
    with pytest.raises(OptionError, match="noise"):
        facts_sim(context, noise=1.0)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("text,label\n", "no rows"),
        ("body,label\na,b\n", "there is no column 'text'"),
        ("text,label\na,x\n,y\n", "row 3"),
        ("text,label\na,x\nb,x\n", "all rows have the label 'x'"),
    ],
)
def test_bad_file_is_refused_with_its_place(context: DataContext, tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        documents(context, path=Path("bad.csv"))
    assert what in caught.value.what
    assert caught.value.fix
    with pytest.raises(DataError, match="does not exist"):
        documents(context, path=Path("missing.csv"))


def test_padding_changes_no_prediction(context: DataContext) -> None:
    splits = judgments_sim(context, cases=60, unlabelled=0)
    batch = splits.train.batch(range(4))
    for model in (Phrases, BagOfWords):
        torch.manual_seed(0)
        made = model(Task(info=splits.info, kind="multiclass", outputs=4)).eval()
        whole = made(batch["input_ids"], batch["attention_mask"])
        padded = [torch.nn.functional.pad(batch[name], (0, 7)) for name in ("input_ids", "attention_mask")]
        assert torch.allclose(made(*padded), whole, atol=1e-6)


def test_recall_of_each_outcome() -> None:
    head = Outcome(DataInfo(inputs={}, classes=("allowed", "partly allowed")))
    prediction = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    found = head.evaluate(prediction, {"target": torch.tensor([0, 0, 1, 1])})
    assert (found["recall_allowed"], found["recall_partly_allowed"]) == (1.0, 0.5)
    assert round(found["macro_f1"], 4) == round((0.8 + 2 / 3) / 2, 4)


def test_student_of_a_finished_run_reads_new_documents(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    recipe = {
        "head": "law/outcome",
        "dataset": {"use": "law/documents", "path": str(SAMPLE), "length": 16},
        "teacher": {"use": "core/hf-encoder", "config": config},
        "student": {"use": "core/text-encoder", "vocabulary": 40, "embedding": 4, "width": 8, "layers": 1, "inner": 8},
        "controls": ["core/tfidf-logistic"],
    }
    summary = run_tiny(recipe, out=tmp_path / "run")
    assert summary["student"]["parameters"] < summary["teacher"]["parameters"]
    predicted = stillhouse.predict(tmp_path / "run", SAMPLE)
    assert set(predicted["label"]) <= {"employment", "sale", "tenancy"}
    assert len(predicted["label"]) == 18


@pytest.mark.parametrize("recipe", ["law/judgments", "law/facts"])
def test_recipe_runs_to_its_report(recipe: str) -> None:
    assert run_tiny(recipe)["verdict"]["sentence"]
