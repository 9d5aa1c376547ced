"""Peak memory of runs that write texts over a vocabulary of 30,522: ``python -m benchmarks.memory``.

3,000 pairs of made-up texts of up to 64 tokens, one epoch each of small models, from the first row to the report: token
divergence at every step (``offline``), the same from stored outputs (``stored``), and sequence-level distillation
(``sequence``). All predictions of one split at once, the tensor that is never made, would take 23 GB.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

ROWS, TOKENS, VOCABULARY = 3000, 64, 30522
VARIANTS: dict[str, dict[str, Any]] = {
    "offline": {"objectives": {"alpha": 0.3, "soft": [{"use": "core/token-kl"}]}},
    "stored": {"objectives": {"alpha": 0.3, "soft": [{"use": "core/token-kl"}]}},
    "sequence": {"method": "core/sequence"},
}


def write_pairs(file: Path, rows: int) -> None:
    """Texts of words that are made of random letters, so that a tokenizer finds as many tokens as it may have."""
    random = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(random.choice(letters, size)) for size in random.integers(3, 9, 30000)]
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["source", "target"])
        for _ in range(rows):
            source = random.choice(words, random.integers(20, 60))
            writer.writerow([" ".join(source), " ".join(source[::-1])])


def recipe(file: Path, variant: str) -> dict[str, Any]:
    """Small models; what takes memory is the vocabulary."""
    model = {"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 1, "num_heads": 4}
    dataset = {"use": "core/text-pairs", "path": str(file), "source": "source", "target": "target"}
    dataset |= {"tokenizer": "byte-bpe", "vocabulary": VOCABULARY, "max_length": TOKENS, "max_target": TOKENS}
    train = {"epochs": 1, "batch_size": 16}
    teacher = {"use": "core/hf-seq2seq", "config": model}
    if variant == "stored":
        teacher["top_k"] = 16
    return {
        "head": "core/generation",
        "dataset": dataset,
        "teacher": teacher,
        "student": {"use": "core/hf-seq2seq", "config": {**model, "d_ff": 64}},
        "train": {"teacher": train, "student": train},
        "seeds": [0],
        **VARIANTS[variant],
    }


def main() -> None:
    """Print the peak of each run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("variant", nargs="?", choices=sorted(VARIANTS), help="only this one")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"pairs of texts, {ROWS:,} by default")
    given = parser.parse_args()
    chosen, rows = given.variant, given.rows
    for variant in VARIANTS if chosen is None else [chosen]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_pairs(folder / "pairs.csv", rows)
            (folder / "recipe.yaml").write_text(json.dumps(recipe(folder / "pairs.csv", variant)))
            command = [sys.executable, "-m", "stillhouse", "run", str(folder / "recipe.yaml"), "--quiet"]
            environment = {**os.environ, "STILLHOUSE_CACHE": str(folder / "cache")}
            child = subprocess.Popen([*command, "--out", str(folder / "run")], env=environment)
            _, status, used = os.wait4(child.pid, 0)
            if status:
                sys.exit(f"the run '{variant}' has failed")
            facts = json.loads((folder / "run" / "data" / "info.json").read_text())["meta"]["text"]
        print(f"{variant}: peak {used.ru_maxrss / 2**20:.2f} GB, {rows} rows, {facts['vocabulary']} tokens", flush=True)


if __name__ == "__main__":
    main()
