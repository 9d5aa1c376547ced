"""Short texts of maintenance work orders and the part of the machine that they are about: five mining excavators."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from stillhouse.data import tables
from stillhouse.data.splitting import split_groups
from stillhouse.errors import DataError, OptionError
from stillhouse.text import near_duplicates, text_splits
from stillhouse.types import DataContext, Splits

HOMEPAGE = "https://github.com/usnistgov/nestor"
TEXT, PLACE, MACHINE = "OriginalShorttext", "FuncLocation", "Asset"


def work_orders(
    context: DataContext,
    *,
    path: Path | None = None,
    test_machines: tuple[str, ...] = ("E",),
    classes: int = 15,
    tokenizer: str = "wordpiece",
    vocabulary: int = 3000,
    max_length: int = 32,
    val_fraction: float = 0.1,
) -> Splits:
    """Work orders of excavators, as typed by the crews: where on the machine is the trouble (``FuncLocation``)?

    Some machines are for testing only, as a model meets a machine that it has not seen. Of the others, orders are drawn
    for validation, and those that nearly repeat each other stay on one side. The places were chosen by people, and are
    noisy; orders of all but the most frequent places are left out, and those of places that one machine alone has: they
    name the machine rather than a part of it.

    Args:
        context: what the framework gives.
        path: the file excavators-cleaned.csv; by default in industrial/excavators-mwo in STILLHOUSE_DATA.
        test_machines: machines (A to E) whose orders are for testing.
        classes: number of the most frequent places.
        tokenizer: folder, hub id or "package:folder" of a Hugging Face tokenizer; or "wordpiece" or "bpe": one is
            trained on the training rows.
        vocabulary: size of a tokenizer that is trained.
        max_length: tokens of an order that are kept.
        val_fraction: share of the other machines' orders that are for validation.

    Raises:
        DataError: the file is not there, a column is missing or a text is empty.
        OptionError: no machine is left for training, or one is not in the file.
    """
    official = context.root.parent / "excavators-mwo" / "excavators-cleaned.csv"
    file = context.base / path if path is not None else official
    if not file.is_file():
        raise DataError(
            "the work orders of the excavators are not there",
            where=str(file),
            fix=f"get excavators-cleaned.csv ({HOMEPAGE}) and put it into that folder, or set dataset.path",
        )
    table, first = tables.read_table(file, texts=[TEXT]), tables.first_row(file)
    tables.require_columns(table, [TEXT, PLACE, MACHINE], str(file))
    place = [str(each).upper().lstrip("+").strip() for each in table[PLACE]]
    names = _places(place, tables.words(table[MACHINE], where=str(file), first=first), classes)
    table = table[[each in names for each in place]].reset_index(drop=True)
    target = np.array([names.index(each) for each in place if each in names])
    texts = tables.words(table[TEXT], where=str(file), first=first)
    machine = np.array(tables.words(table[MACHINE], where=str(file), first=first))
    known = sorted(set(machine.tolist()))
    if not set(test_machines) < set(known) or not test_machines:
        raise OptionError(
            f"test_machines are {', '.join(test_machines) or 'none'}",
            where="dataset 'industrial/work-orders'",
            fix=f"some of {', '.join(known)}, and not all",
        )
    rest, test = (np.flatnonzero(np.isin(machine, test_machines) == chosen) for chosen in (False, True))
    family = near_duplicates([texts[at] for at in rest])
    drawn = split_groups(family, {"val": val_fraction}, context.seed, classes=target[rest], where=str(file))
    return text_splits(
        texts,
        target,
        classes=[name.lower() for name in names],
        seed=context.seed,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        max_length=max_length,
        parts={"train": rest[drawn["train"]], "val": rest[drawn["val"]], "test": test},
        column=TEXT,
        description=f"Work orders of excavators, tested on {', '.join(test_machines)}",
        where=str(file),
    )


def _places(places: list[str], machines: list[str], many: int) -> list[str]:
    """The most frequent places that at least two machines have."""
    owners: dict[str, set[str]] = {}
    for place, machine in zip(places, machines, strict=True):
        owners.setdefault(place, set()).add(machine)
    counts = Counter(place for place in places if len(owners[place]) > 1)
    return [name for name, _ in sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:many]]
