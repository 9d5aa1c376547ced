"""News: the files of the PhraseBank, the generated sample, and a run on it."""

from __future__ import annotations

from pathlib import Path

import pytest

import stillhouse
from stillhouse.errors import DataError, OptionError
from stillhouse.text import near_duplicates
from stillhouse.types import DataContext
from stillhouse_finance.datasets.news import CLASSES, news, news_sim, read_phrasebank, sample

REAL = Path("financial-phrasebank")


def write(folder: Path, lines: list[str], name: str = "Sentences_50Agree.txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes("\r\n".join(lines).encode("latin-1") + b"\r\n")
    return folder / name


def test_a_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = write(tmp_path, ["Käse AG mailed a@b.fi .@neutral", "", "Sales rose .@positive"])
    assert read_phrasebank(file) == (["Käse AG mailed a@b.fi .", "Sales rose ."], ["neutral", "positive"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["Sales rose .@positive", "Sales fell ."], "line 2 is not a sentence"),
        (["Sales rose .@good"], "line 1 is not a sentence"),
        (["@positive"], "line 1 is not a sentence"),
        ([""], "no sentences"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_phrasebank(write(tmp_path, lines))


def test_missing_files_say_where_they_belong(context: DataContext) -> None:
    with pytest.raises(DataError, match="PhraseBank is not there") as error:
        news(context)
    assert error.value.where.endswith("financial-phrasebank/Sentences_50Agree.txt")


def test_sentences_that_nearly_repeat_stay_in_one_split(context: DataContext) -> None:
    sentences, labels = sample(120, seed=3)
    lines = [f"{text}@{label}" for text, label in zip(sentences, labels, strict=True)]
    lines += [f"{text.upper()}@{label}" for text, label in zip(sentences, labels, strict=True)]
    write(context.root.parent / REAL, lines)
    splits = news(context, overlap=0.75)
    texts = [line.rpartition("@")[0] for line in lines]
    family = near_duplicates(texts, least=0.75)
    seen = [{int(family[at]) for at in split.index().tolist()} for split in splits.named().values()]
    assert sum(map(len, seen)) == len(set.union(*seen))
    assert sum(map(len, splits.named().values())) == 240


def test_the_sample_has_all_classes_and_repeats(tmp_path: Path) -> None:
    context = DataContext(root=tmp_path, base=tmp_path)
    first, again = news_sim(context), news_sim(context)
    assert first.train.fingerprint() == again.train.fingerprint()
    assert first.info.simulated
    assert first.info.classes == CLASSES
    assert all(len(set(split.columns(["target"])["target"].tolist())) == 3 for split in first.named().values())
    with pytest.raises(OptionError, match="rows are 10"):
        news_sim(context, rows=10)


def test_neither_what_moves_nor_which_way_tells_the_sentiment_alone() -> None:
    sentences, labels = sample(2000, seed=0)
    for word in ("net debt", "net sales", "rose clearly", "fell clearly"):
        of_word = [label for text, label in zip(sentences, labels, strict=True) if word in text]
        assert {"positive", "negative"} <= set(of_word)


@pytest.mark.data
def test_the_official_file(data_folder: Path) -> None:
    folder = data_folder / "finance" / REAL
    if not folder.is_dir():
        pytest.skip("needs the Financial PhraseBank in STILLHOUSE_DATA")
    splits = news(DataContext(root=folder.parent / "news", base=Path()))
    rows = {name: len(split) for name, split in splits.named().items()}
    assert sum(rows.values()) == 4846
    assert abs(rows["test"] / 4846 - 0.2) < 0.01
    assert abs(rows["val"] / 4846 - 0.1) < 0.01


def test_the_demo_runs_and_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "store"))
    few = ["train.teacher.epochs=1", "train.student.epochs=1", "seeds=[0]", "evaluate.latency_samples=5"]
    stillhouse.run("finance/news-demo", out=tmp_path / "run", overrides=few)
    file = tmp_path / "new.csv"
    file.write_text('sentence\n"Aldra said that net debt rose clearly , it was said ."\n')
    found = stillhouse.predict(tmp_path / "run", file)
    assert found["row"] == [2]
    assert found["label"][0] in CLASSES
