"""Captions and their translations: files in miniature, and the sample that stands in."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from stillhouse.errors import DataError
from stillhouse.text.pairs import texts_of
from stillhouse.types import DataContext
from stillhouse_audio_vision.datasets.captions import FILES, caption_translation, read_pairs


def context_of(root: Path) -> DataContext:
    return DataContext(root=root / "any", base=root)


def official(root: Path) -> Path:
    folder = root / "multi30k"
    folder.mkdir(parents=True)
    for name, rows in zip(FILES.values(), (30, 6, 5), strict=True):
        for language, word in (("en", "A dog"), ("de", "Ein Mädchen")):
            text = "".join(f"{word} {name} {row}.\n" for row in range(rows))
            (folder / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def test_the_official_split_is_kept_and_training_rows_can_be_fewer(tmp_path: Path) -> None:
    official(tmp_path)
    splits = caption_translation(context_of(tmp_path), vocabulary=300)
    assert [len(split) for split in splits.named().values()] == [30, 6, 5]
    assert texts_of(splits.test.batch([4])["reference"]) == ["Ein Mädchen test_2016_flickr 4."]
    fewer = caption_translation(context_of(tmp_path), vocabulary=300, rows=20)
    assert [len(split) for split in fewer.named().values()] == [20, 6, 5]
    assert texts_of(fewer.test.batch([4])["reference"]) == ["Ein Mädchen test_2016_flickr 4."]


def test_a_sample_stands_in_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="generated captions stand in"):
        splits = caption_translation(context_of(tmp_path), vocabulary=400)
    assert splits.info.simulated
    every = [text for split in splits.named().values() for text in texts_of(split.columns(["reference"])["reference"])]
    assert len(set(every)) == len(every), "no sentence stands in two splits"
    assert "Drei Jungen spielen auf der Straße." in every


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = official(tmp_path)
    with pytest.raises(DataError, match="Multi30k is not there"):
        caption_translation(context_of(tmp_path), path=Path("none"))
    (folder / "val.de.gz").write_bytes(gzip.compress(b"eins\nzwei\n"))
    with pytest.raises(DataError, match="'val' has 6 lines in English and 2 in German"):
        read_pairs(folder, "val")
    (folder / "val.de.gz").write_bytes(gzip.compress(b"eins\n\nzwei\n"))
    with pytest.raises(DataError, match="line 2 is empty"):
        read_pairs(folder, "val")
    (folder / "val.de.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(folder, "val")
