"""Chest X-ray reports: the impression to be written after the findings. IU X-ray, or a generated sample."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from stillhouse.data import tables
from stillhouse.errors import DataError
from stillhouse.text import pair_splits
from stillhouse.types import DataContext, Splits

FILE = "indiana_reports.csv"
HOMEPAGE = "https://openi.nlm.nih.gov"
COLUMNS = ("uid", "Problems", "findings", "impression")
VAL, TEST = 0.1, 0.2
SAMPLE_ROWS = 240

NORMAL = (
    "The heart size is within normal limits.",
    "The lungs are clear.",
    "No pleural fluid is seen.",
    "There is no sign of a pneumothorax.",
    "The bones are intact.",
    "The mediastinum has a normal width.",
)
SIDES = ("left", "right")
FOUND = {
    "There is fluid at the {side} lung base.": "Pleural effusion on the {side}.",
    "The {side} upper lobe has a dense opacity.": "Opacity in the {side} upper lobe, pneumonia is possible.",
    "A small nodule lies in the {side} lower lobe.": "Nodule in the {side} lower lobe, follow-up is advised.",
    "The heart is enlarged.": "Cardiomegaly.",
    "A {side} rib has an old fracture.": "Old rib fracture on the {side}.",
}
"""What the sample's reports find, and what their impressions say of it."""


def report_impression(
    context: DataContext,
    *,
    path: Path | None = None,
    tokenizer: str = "byte-bpe",
    vocabulary: int = 2000,
    max_length: int = 128,
    max_target: int = 48,
) -> Splits:
    """Findings of chest X-ray reports and the impressions that radiologists wrote after them: Indiana University's
    collection, or a generated sample where its file is not there.

    Reports without findings or impression are left out. A report is in the split that the SHA-256 of its uid says: 70 %
    for training, 10 for validation, 20 for the test, whatever the seed. Radiologists write the same findings again and
    again, so that many of a test report are in a training report word for word: reports whose findings are ``new``, and
    reports that are not normal (``abnormal``), are judged by themselves, too, and the impression of the nearest
    training report is a reference. XXXX stands for what was de-identified; it is kept.

    Args:
        context: what the framework gives.
        path: indiana_reports.csv; by default in medicine/iu-xray-reports of STILLHOUSE_DATA, and a sample of this
            package's own making when it is not there.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "byte-bpe", "wordpiece" or "bpe":
            one is trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of the findings that are kept.
        max_target: tokens of an impression that are learnt; all of it is judged.

    Raises:
        DataError: the file cannot be used, or ``path`` does not name one.
        OptionError: an option is out of range.
    """
    file = context.base / path if path is not None else context.root.parent / "iu-xray-reports" / FILE
    simulated = path is None and not file.is_file()
    if simulated:
        warnings.warn(
            f"'{file}' is not there: a generated sample of {SAMPLE_ROWS} reports stands in for it. Its numbers say "
            f"nothing of real reports ({HOMEPAGE})",
            stacklevel=2,
        )
    reports = sample(SAMPLE_ROWS, context.seed) if simulated else read_reports(file)
    uids = reports["uid"].tolist()
    parts = split_by_hash(uids)
    return pair_splits(
        reports["findings"].tolist(),
        reports["impression"].tolist(),
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        max_target=max_target,
        groups=uids,
        parts=parts,
        apart={"abnormal": (reports["Problems"].str.strip().str.lower() != "normal").tolist()},
        column="findings",
        description="Generated chest X-ray reports" if simulated else "IU X-ray: findings to impression",
        simulated=simulated,
        where=str(file),
    )


def read_reports(file: Path) -> pd.DataFrame:
    """Reports with findings and impression, blanks at their ends removed, in the order of the file.

    Raises:
        DataError: the file is not there, lacks a column, or has no such report.
    """
    if not file.is_file():
        raise DataError(
            "the reports are not there",
            where=str(file),
            fix=f"get {FILE} ({HOMEPAGE}) and put it into that folder, or set dataset.path",
        )
    table = tables.read_table(file, texts=list(COLUMNS))
    tables.require_columns(table, list(COLUMNS), str(file))
    texts = {name: table[name].fillna("").astype(str).str.strip() for name in COLUMNS}
    whole = pd.DataFrame(texts)
    kept = whole[(whole["findings"] != "") & (whole["impression"] != "")].reset_index(drop=True)
    if kept.empty:
        raise DataError("no report has findings and an impression", where=str(file), fix="get the file again")
    return kept


def split_by_hash(uids: list[str]) -> dict[str, list[int]]:
    """Positions of each split: by the first 8 hexadecimal digits of the uid's SHA-256 as a share of 16^8, below 0.2
    for the test, below 0.3 for validation, the rest for training."""
    share = [int(hashlib.sha256(uid.encode()).hexdigest()[:8], 16) / 16**8 for uid in uids]
    found: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for position, each in enumerate(share):
        found["test" if each < TEST else "val" if each < TEST + VAL else "train"].append(position)
    return found


def sample(rows: int, seed: int) -> pd.DataFrame:
    """Generated reports: some normal sentences, and up to two that find something, in any order.

    Args:
        rows: number of reports.
        seed: of the generator.
    """
    random = np.random.default_rng(seed)
    concluded = {seen.format(side=side): said.format(side=side) for seen, said in FOUND.items() for side in SIDES}
    reports = []
    for row in range(rows):
        findings = [NORMAL[at] for at in random.choice(len(NORMAL), size=random.integers(2, 5), replace=False)]
        for at in random.choice(len(FOUND), size=random.integers(0, 3), replace=False):
            seen = list(FOUND)[at].format(side=SIDES[random.integers(2)])
            findings.insert(int(random.integers(len(findings) + 1)), seen)
        impression = [concluded[each] for each in findings if each in concluded]
        reports.append(
            {
                "uid": f"sample-{row}",
                "Problems": "abnormal" if impression else "normal",
                "findings": " ".join(findings),
                "impression": " ".join(impression) or "Normal chest.",
            }
        )
    return pd.DataFrame(reports)
