"""Chest X-ray reports and marked adverse effects: official files in miniature, and the samples that stand in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from stillhouse.errors import DataError
from stillhouse.text.pairs import texts_of
from stillhouse.text.tags import word_labels
from stillhouse.types import DataContext
from stillhouse_medicine.datasets.adverse_spans import adverse_event_spans, read_spans
from stillhouse_medicine.datasets.adverse_spans import sample as sentences
from stillhouse_medicine.datasets.reports import read_reports, report_impression, split_by_hash
from stillhouse_medicine.datasets.reports import sample as reports

HEADER = "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"


def context_of(root: Path) -> DataContext:
    return DataContext(root=root / "any", base=root)


def official(root: Path) -> Path:
    """60 reports, two of them incomplete; findings of every third are the same."""
    file = root / "iu-xray-reports" / "indiana_reports.csv"
    file.parent.mkdir(parents=True)
    rows = []
    for uid in range(60):
        findings = "Clear lungs." if uid % 3 == 0 else f"A nodule of {uid} mm."
        normal = uid % 3 == 0
        rows.append(f"{uid},,{'normal' if normal else 'Nodule'},PA,,,{findings},{'Normal.' if normal else 'Nodule.'}")
    file.write_text(HEADER + "\n".join([*rows, "60,,normal,PA,,,,Normal.", "61,,normal,PA,,,Clear lungs., "]) + "\n")
    return file


def test_official_reports_are_split_by_the_hash_of_their_uid(tmp_path: Path) -> None:
    file = official(tmp_path)
    kept = read_reports(file)
    assert len(kept) == 60, "reports without findings or impression are left out"
    splits = report_impression(context_of(tmp_path), vocabulary=300)
    assert not splits.info.simulated
    for name, split in splits.named().items():
        for at in split.index().tolist():
            share = int(hashlib.sha256(str(kept["uid"][at]).encode()).hexdigest()[:8], 16) / 16**8
            assert name == ("test" if share < 0.2 else "val" if share < 0.3 else "train")
    rows = splits.test.columns(["apart", "index", "reference", "retrieved"])
    assert splits.info.meta["text"]["apart"] == ["abnormal", "new"]
    for flags, at, reference in zip(
        rows["apart"].tolist(), rows["index"].tolist(), texts_of(rows["reference"]), strict=True
    ):
        assert flags == [at % 3 != 0] * 2, "what is not normal is new here"
        assert reference == ("Nodule." if at % 3 else "Normal.")
    assert set(texts_of(rows["retrieved"])) <= {"Nodule.", "Normal."}


def test_the_split_has_the_shares_that_it_names() -> None:
    sizes = {name: len(part) for name, part in split_by_hash([str(uid) for uid in range(4000)]).items()}
    assert sizes["test"] == pytest.approx(800, abs=100)
    assert sizes["val"] == pytest.approx(400, abs=75)


def test_a_sample_stands_in_for_reports_that_are_not_there_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="a generated sample of 240 reports stands in"):
        splits = report_impression(context_of(tmp_path), vocabulary=400)
    assert splits.info.simulated
    assert reports(50, 1).equals(reports(50, 1))
    for _, row in reports(80, 0).iterrows():
        assert (row["Problems"] == "normal") == (row["impression"] == "Normal chest.")
        assert ("nodule" in row["findings"]) == ("Nodule" in row["impression"])
    with pytest.raises(DataError, match="the reports are not there"):
        report_impression(context_of(tmp_path), path=Path("none.csv"))
    (tmp_path / "bad.csv").write_text("uid,findings\n1,x\n")
    with pytest.raises(DataError, match="Problems"):
        report_impression(context_of(tmp_path), path=Path("bad.csv"))
    (tmp_path / "empty.csv").write_text(HEADER + "1,,normal,PA,,,,\n")
    with pytest.raises(DataError, match="no report has findings and an impression"):
        read_reports(tmp_path / "empty.csv")


def test_spans_are_found_at_the_places_that_are_as_far_apart_as_the_offsets(tmp_path: Path) -> None:
    sentence = "Rash after drug A; drug A again gave rash, then Rash."
    lines = [
        f"1|{sentence}|Rash|1048|1052|drug A|1019|1025",  # the last rash, and the second drug A: 29 apart
        f"1|{sentence}|rash|1037|1041|drug A|1019|1025",
        "2|No blanks.|blanks|10|16|No|7|9",
    ]
    (tmp_path / "DRUG-AE.rel").write_text("\n".join(lines) + "\n")
    (one, two) = read_spans(tmp_path / "DRUG-AE.rel")
    assert one[:2] == ("1", sentence)
    assert one[2] == [(19, 25, "drug"), (37, 41, "effect"), (48, 52, "effect")]
    assert two[2] == [(0, 2, "drug"), (3, 9, "effect")]
    for bad in ("x|a b|a|1|2|b|3|4", "1|a b|c|1|2|b|3|4", "1|a b|a|1|2|b|3"):
        (tmp_path / "DRUG-AE.rel").write_text(lines[0] + "\n" + bad + "\n")
        with pytest.raises(DataError, match="line 2 is not a PubMed id"):
            read_spans(tmp_path / "DRUG-AE.rel")


def test_sentences_of_a_report_stay_together_and_a_sample_stands_in(tmp_path: Path, files) -> None:
    files.ade(tmp_path / "ade-corpus-v2")
    splits = adverse_event_spans(context_of(tmp_path), vocabulary=200)
    assert sum(len(split) for split in splits.named().values()) == 40, "a sentence on two lines counts once"
    assert splits.info.classes == ("O", "B-drug", "I-drug", "B-effect", "I-effect")
    with pytest.warns(UserWarning, match="a generated sample of 240 sentences stands in"):
        made = adverse_event_spans(context_of(tmp_path / "nowhere"), vocabulary=200)
    assert made.info.simulated
    for _, sentence, spans in sentences(60, 3):
        labels = [label for *_, label in word_labels(sentence, spans)]
        assert sorted(label[2:] for label in labels if label.startswith("B-")) == ["drug", "effect"]
    with pytest.raises(DataError, match="the ADE corpus is not there"):
        adverse_event_spans(context_of(tmp_path), path=Path("none"))


@pytest.mark.data
def test_the_official_files_have_the_known_sizes(data_folder: Path) -> None:
    kept = read_reports(data_folder / "medicine" / "iu-xray-reports" / "indiana_reports.csv")
    assert len(kept) == 3331
    marked = read_spans(data_folder / "medicine" / "ade-corpus-v2" / "DRUG-AE.rel")
    assert len(marked) == 4272
