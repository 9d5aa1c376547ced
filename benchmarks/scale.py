"""How labelling and training grow with rows: ``python -m benchmarks.scale [FAMILY...] [--write]``.

Windows, transactions (in memory, and in Parquet files), spectrograms and texts, made up with real shapes, 1, 10, 100
and 1,000 times over. For each, what opening the rows, labelling them and one epoch of the student take in processor
time, and how much memory the process had at most; each in a process of its own. From the largest size follows what a
billion rows would cost. ``--write`` puts it into ``docs/results/scale.json`` and the tables of ``docs/scale.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import stillhouse
from stillhouse.pipeline.label import label
from stillhouse.plugins.manager import Manager
from stillhouse.progress import Silent
from stillhouse.recipe.check import resolve

ROWS = {"transactions": 2000, "windows": 200, "spectrograms": 40, "texts": 60, "parquet": 5000}
"""Training rows at size 1."""
SIZES = (1, 10, 100, 1000)
EPOCH_OF = 5_000_000
"""Most rows of which an epoch of training is timed: behind that it takes a quarter of an hour and more."""
BILLION, SHARD, WORKERS = 10**9, 2**16, 64
ID_BYTES = 16
"""Of the index in the memory of a process that trains from stored outputs, a row: its id and its place."""
BERT = {"model_type": "bert", "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS: dict[str, dict[str, Any]] = {
    "transactions": {
        "head": "core/multiclass",
        "teacher": {"use": "core/mlp", "hidden": [256, 256]},
        "student": {"use": "core/mlp", "hidden": [16]},
    },
    "parquet": {
        "head": "core/multiclass",
        "teacher": {"use": "core/mlp", "hidden": [256, 256]},
        "student": {"use": "core/mlp", "hidden": [16]},
    },
    "windows": {
        "head": "core/regression",
        "teacher": {"use": "industrial/bilstm", "hidden": 48, "layers": 1},
        "student": {"use": "industrial/temporal-cnn"},
    },
    "spectrograms": {
        "head": "core/multiclass",
        "teacher": {"use": "audio_vision/cnn", "width": 16, "blocks": 3},
        "student": {"use": "audio_vision/mobile-cnn"},
    },
    "texts": {
        "head": "core/multiclass",
        "teacher": {"use": "core/hf-encoder", "config": {**BERT, "intermediate_size": 192}},
        "student": {"use": "core/text-encoder", "vocabulary": 1000, "embedding": 16, "width": 32, "layers": 1},
    },
}
for _module in ("asked", "evaluate", "opening", "signal", "student"):
    import_module(f"stillhouse.pipeline.{_module}")  # once, in the process from which the measured ones are forked
HERE = Path(__file__).resolve().parent
MANAGER = Manager(files=[HERE / "scale_rows.py"])
FIGURES, PAGE = HERE.parent / "docs" / "results" / "scale.json", HERE.parent / "docs" / "scale.md"
BEGIN, END = "<!-- figures: python -m benchmarks.scale --write -->", "<!-- end of figures -->"


def recipe(family: str, rows: int, folder: Path, teacher: Path | None) -> dict[str, Any]:
    """One epoch of everything, and one seed."""
    train = {"epochs": 1, "batch_size": 128}
    values: dict[str, Any] = {"name": f"{family}-{rows}", **json.loads(json.dumps(MODELS[family]))}
    if family == "parquet":
        _write_parquet(folder / f"{rows}", rows)
        values["dataset"] = {"use": "core/parquet", "path": str(folder / f"{rows}"), "target": "label"}
    elif family == "texts":
        _write_texts(folder / f"{rows}.csv", rows)
        values["dataset"] = {"use": "core/texts", "path": str(folder / f"{rows}.csv"), "text": "text", "label": "label"}
        values["dataset"] |= {"tokenizer": "wordpiece"}
    else:
        values["dataset"] = {"use": f"scale_rows/{family}", "rows": rows}
    if teacher is not None:
        values["teacher"]["checkpoint"] = str(teacher)
    return {**values, "train": {"teacher": train, "student": train}, "seeds": [0], "device": "cpu"}


def _write_texts(file: Path, rows: int) -> None:
    """Texts of 15 to 40 words, as frequent as in a language (Zipf's law over 30,000), one in four of the 500 that tell
    the class; eight of ten become training rows."""
    import numpy as np

    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, size)) for size in random.integers(3, 9, 32_000)]
    frequency = 1 / np.arange(3, 30_003)
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        for number in range(round(rows / 0.8)):
            label = number % 4
            chosen = random.choice(30_000, random.integers(15, 40), p=frequency / frequency.sum())
            telling = random.random(len(chosen)) < 0.25
            chosen = np.where(telling, 30_000 + 500 * label + random.integers(0, 500, len(chosen)), chosen)
            writer.writerow([" ".join(words[at] for at in chosen), "abcd"[label]])


def _write_parquet(folder: Path, rows: int) -> None:
    """The columns of transactions, piece by piece."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random, weights = np.random.default_rng(0), np.random.default_rng(1).standard_normal(30, dtype=np.float32)
    names, piece = [f"x{number}" for number in range(30)], 2**16
    schema = pa.schema([*((name, pa.float32()) for name in names), ("label", pa.int64())])
    folder.mkdir()
    for split, count in (("train", rows), ("val", 500), ("test", 500)):
        with pq.ParquetWriter(folder / f"{split}.parquet", schema) as writer:
            for start in range(0, count, piece):
                values = random.standard_normal((min(piece, count - start), 30), dtype=np.float32)
                label = np.digitize(values @ weights / 30**0.5, (-0.7, 0.0, 0.7)).astype(np.int64)
                writer.write_table(pa.table([*values.T, label], schema=schema))


def child(what: str, recipe_file: str, out: str) -> dict[str, Any]:
    """Label, or train one epoch from what was labelled; what it took."""
    marks: dict[str, float] = {}

    class Clock(Silent):
        """Processor time at the first word of each kind."""

        def stage(self, name: str, note: str = "") -> None:
            marks.setdefault(name, time.process_time())

        def model(self, label: str, epochs: int, done: int = 0) -> None:
            marks[f"begin {label}"] = time.process_time()

        def epoch(self, record: Mapping[str, Any]) -> None:
            marks[f"end {record['stage']}"] = time.process_time()

    before, began = _peak(), time.process_time()
    given: dict[str, Any] = {"out": out, "manager": MANAGER, "reporter": Clock()}
    if what == "label":
        labelled = label(recipe_file, **given)
        taken = {
            "opening": marks["teacher"] - began,
            "labelling": time.process_time() - marks["label"],
            "bytes": labelled.bytes,
            "shards": labelled.shards,
            "rows": sum(labelled.rows.values()),
        }
    else:
        stillhouse.run(recipe_file, stop_after="student", **given)
        taken = {"epoch": marks["end student"] - marks["begin student, seed 0"]}
    return {**taken, "memory": _peak(), "memory_before": before}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_process(*args: str) -> dict[str, Any]:
    """In a process of its own, which begins with the packages imported."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=lambda: there.send(child(*args)))
    process.start()
    there.close()
    try:
        found: dict[str, Any] = here.recv()
    except EOFError:
        sys.exit(f"{' '.join(args)} has failed")
    process.join()
    return found


def measure(family: str, folder: Path, sizes: Sequence[int] = SIZES) -> list[dict[str, Any]]:
    """All sizes of a family. The teacher of the smallest one speaks of all, where rows have one shape."""
    found: list[dict[str, Any]] = []
    for size in sizes:
        rows, out = ROWS[family] * size, folder / f"{family}-{size}"
        teacher = folder / f"{family}-1" / "teacher" / "member-0" if size > 1 and family != "texts" else None
        file = folder / f"{family}-{size}.yaml"
        file.write_text(json.dumps(recipe(family, rows, folder, teacher)))
        for component in resolve(file, MANAGER.registry).components().values():
            component.load()
        labelled = _in_process("label", str(file), str(out))
        epoch = _in_process("epoch", str(file), str(out)) if rows <= EPOCH_OF else None
        found.append({"family": family, "size": size, "label": labelled, "epoch": epoch})
        rows = labelled["rows"]
        print(
            f"{family:13} {rows:9,} rows: opened in {labelled['opening']:.2f} s, labelled in "
            f"{labelled['labelling']:.2f} s ({rows / labelled['labelling']:,.0f} rows/s), "
            f"{labelled['memory'] / 1e6:.0f} MB; an epoch in {_epoch(epoch, ', ')}",
            flush=True,
        )
    return found


def _epoch(epoch: dict[str, Any] | None, between: str) -> str:
    return f"–{between}–" if epoch is None else f"{epoch['epoch']:.2f} s{between}{epoch['memory'] / 1e6:,.0f} MB"


def growth(found: list[dict[str, Any]], what: str, kind: str) -> float:
    """The power of rows with which something grows over the last ten-fold; 1 is linear."""
    few, many = [each for each in found if each[what] is not None][-2:]
    rows = many["label"]["rows"] / few["label"]["rows"]
    return math.log(many[what][kind] / few[what][kind]) / math.log(rows)


def memory_by_row(found: list[dict[str, Any]], what: str) -> float:
    """Bytes of memory for each row that was added in the last ten-fold."""
    few, many = [each for each in found if each[what] is not None][-2:]
    more: float = many[what]["memory"] - few[what]["memory"]
    return more / (many["label"]["rows"] - few["label"]["rows"])


def billion(found: list[dict[str, Any]]) -> dict[str, Any]:
    """What labelling a billion rows costs, from the rate at the largest size."""
    labelled = found[-1]["label"]
    rate, size = labelled["rows"] / labelled["labelling"], labelled["bytes"] / labelled["rows"]
    half = 8 + (size - 8) / 2  # the id stays
    return {
        "rows_per_core_second": rate,
        "core_hours": BILLION / rate / 3600,
        "hours_on_workers": BILLION / rate / 3600 / WORKERS,
        "bytes_float32": size * BILLION,
        "bytes_float16": half * BILLION,
        "shards": math.ceil(BILLION / SHARD),
        "index_bytes": ID_BYTES * BILLION,
    }


def tables(record: Mapping[str, Any]) -> str:
    """Markdown of all that was measured, and of a billion rows."""
    on = record["machine"]
    lines = [
        f"\n{on['date']}, {on['cores']} cores ({on['used']} used), {on['memory_gb']} GB, load {on['load']}, Python "
        f"{on['python']}, torch {on['torch']}.\n",
        "| rows | | opened | labelled | rows/s | memory | an epoch | memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for found in record["measured"].values():
        for each in found:
            one = each["label"]
            lines.append(
                f"| {each['family']} | {one['rows']:,} | {one['opening']:.2f} s | {one['labelling']:.2f} s | "
                f"{one['rows'] / one['labelling']:,.0f} | {one['memory'] / 1e6:,.0f} MB | "
                f"{_epoch(each['epoch'], ' | ')} |"
            )
    lines += [
        "\nGrowth over the last ten-fold, as a power of the number of rows (1 is linear), and bytes of memory for each "
        "row that was added:\n",
        "| rows | opening | labelling | an epoch | bytes a row, labelling | bytes a row, an epoch |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for family, found in record["measured"].items():
        powers = [growth(found, *each) for each in (("label", "opening"), ("label", "labelling"), ("epoch", "epoch"))]
        added = [memory_by_row(found, what) for what in ("label", "epoch")]
        lines.append(
            f"| {family} | {' | '.join(f'{each:.2f}' for each in (*powers,))} | {added[0]:,.0f} | {added[1]:,.0f} |"
        )
    lines += [
        "\nA billion rows, from the rate at the largest size:\n",
        f"| rows | rows/s of a core | core hours | hours on {WORKERS} cores | float32 | float16 | shards of {SHARD:,} "
        "| ids in memory |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for family, each in record["billion"].items():
        lines.append(
            f"| {family} | {each['rows_per_core_second']:,.0f} | {each['core_hours']:,.1f} | "
            f"{each['hours_on_workers']:,.2f} | {each['bytes_float32'] / 1e9:,.0f} GB | "
            f"{each['bytes_float16'] / 1e9:,.0f} GB | {each['shards']:,} | {each['index_bytes'] / 1e9:,.0f} GB |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Where and when."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": date.today().isoformat(),
        "cores": os.cpu_count(),
        "used": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def main() -> None:
    """Print a line for each size, and write the figures where that is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("families", nargs="*", help=f"of {', '.join(ROWS)}; all by default")
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="times over; from 1 on")
    parser.add_argument("--write", action="store_true", help="write the figures of the documentation")
    given = parser.parse_args()
    if given.sizes[:1] != [1]:
        parser.error("--sizes begins with 1: its teacher speaks of the other sizes, too")
    torch.set_num_threads(1)
    record: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {"measured": {}, "billion": {}}
    for family in given.families or ROWS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["STILLHOUSE_CACHE"] = f"{folder}/cache"
            record["measured"][family] = measure(family, Path(folder), given.sizes)
        record["billion"][family] = billion(record["measured"][family])
        record["machine"] = machine()
        if given.write:
            _write(record)
    print(tables(record))


def _write(record: Mapping[str, Any]) -> None:
    FIGURES.write_text(json.dumps(record, indent=1) + "\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(record)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
