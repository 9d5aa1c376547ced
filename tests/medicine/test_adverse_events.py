"""The ADE corpus: its files, each sentence once, reports in one split."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from stillhouse.errors import DataError
from stillhouse.types import DataContext
from stillhouse_medicine.datasets.adverse_events import adverse_events, read_corpus


def context_of(root: Path) -> DataContext:
    return DataContext(root=root / "adverse-events", base=root)


def test_a_sentence_counts_once_and_as_positive_if_it_ever_is(tmp_path: Path) -> None:
    (tmp_path / "DRUG-AE.rel").write_text(
        "7|Rash after A and B.|Rash|0|4|A|11|12\n7|Rash after A and  B.|Rash|0|4|B|17|18\n"
    )
    (tmp_path / "ADE-NEG.txt").write_text("7 NEG rash after A and B.\n7 NEG She was 7 | 8 years old.\n9 NEG Well.\n")
    assert read_corpus(tmp_path) == [
        ("7", "Rash after A and B.", 1),
        ("7", "She was 7 | 8 years old.", 0),
        ("9", "Well.", 0),
    ]


def test_reports_stay_in_one_split(tmp_path: Path, files: SimpleNamespace) -> None:
    files.ade(tmp_path / "ade-corpus-v2")
    splits = adverse_events(context_of(tmp_path))
    document = [each[0] for each in read_corpus(tmp_path / "ade-corpus-v2")]
    seen = [{document[at] for at in split.index().tolist()} for split in splits.named().values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == len(set(document))


@pytest.mark.parametrize(("name", "line"), [("DRUG-AE.rel", "7|Rash.|Rash"), ("ADE-NEG.txt", "NEG Well.")])
def test_bad_lines_are_named(tmp_path: Path, files: SimpleNamespace, name: str, line: str) -> None:
    files.ade(tmp_path)
    with (tmp_path / name).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match="is not a PubMed id and a sentence") as error:
        read_corpus(tmp_path)
    assert error.value.where.endswith(name)


def test_missing_files_say_where_they_belong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ADE corpus is not there"):
        adverse_events(context_of(tmp_path))


@pytest.mark.data
def test_the_official_files(data_folder: Path) -> None:
    folder = data_folder / "medicine" / "ade-corpus-v2"
    if not folder.is_dir():
        pytest.skip("needs the ADE corpus in STILLHOUSE_DATA")
    found = read_corpus(folder)
    assert (len(found), sum(label for _, _, label in found), len({each[0] for each in found})) == (20_960, 4_272, 2_972)
