"""A real language model as teacher, killed in the middle: ``python -m benchmarks.chat --gguf FILE``.

Serves a GGUF file on 127.0.0.1 with xllamacpp (``--python`` is an interpreter that has it), draws ``--rows`` sentences
of the Financial PhraseBank (``$STILLHOUSE_DATA/finance/financial-phrasebank``), of which a sixth is for training and a
sixth for validation, and runs ``core/chat`` on them with ``--shots`` examples of each class. The first start of the run
is killed (SIGKILL) at half of the rows, the second goes on. Requests are counted on their way to the server.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

SERVE = """
import sys, time, xllamacpp
options = xllamacpp.CommonParams()
options.model.path, options.hostnames, options.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
options.n_ctx, options.n_parallel, options.warmup = 2048, 1, False
options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(options)
time.sleep(1e9)
"""
PROMPT = """\
{% for each in examples %}News: {{ each.row.text }}
Sentiment (positive, neutral or negative): {{ each.answer }}

{% endfor %}News: {{ row.text }}
Sentiment (positive, neutral or negative):"""


class Counter(BaseHTTPRequestHandler):
    """Passes each request on, and counts it."""

    target, requests = "", 0

    def do_POST(self) -> None:
        Counter.requests += 1
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = urllib.request.Request(self.target + self.path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                content = answer.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # whoever asked is gone, or the server is

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@contextmanager
def served(python: str, gguf: Path, port: int) -> Iterator[str]:
    """Address of a counter before a server of the model."""
    command = [python, "-c", SERVE, str(gguf), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            if server.poll() is not None:
                sys.exit(f"the server of {gguf} has ended: does {python} have xllamacpp?")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        Counter.target = f"http://127.0.0.1:{port}"
        counter = ThreadingHTTPServer(("127.0.0.1", port + 1), Counter)
        threading.Thread(target=counter.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{port + 1}/v1"
        counter.shutdown()
    finally:
        server.terminate()
        server.wait()


def sentences(rows: int, seed: int, file: Path) -> None:
    """So many sentences, each class by its share."""
    from stillhouse_finance.datasets.news import read_phrasebank

    folder = Path(os.environ["STILLHOUSE_DATA"]) / "finance" / "financial-phrasebank"
    texts, labels = read_phrasebank(folder / "Sentences_50Agree.txt")
    chosen = np.random.default_rng(seed).permutation(len(texts))[:rows]
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        writer.writerows([texts[at], labels[at]] for at in chosen)


def recipe(file: Path, address: str, shots: int) -> dict[str, Any]:
    """One request at a time, one token each, whose log probabilities are the answer."""
    teacher = {"use": "core/chat", "base_url": address, "model": "local", "api": "completions", "prompt": PROMPT}
    teacher |= {"shots": shots, "reply_tokens": 1, "parameters": {"logprobs": 100}, "concurrency": 1, "timeout": 300}
    return {
        "head": "core/multiclass",
        "dataset": {"use": "core/texts", "path": str(file), "val_fraction": 1 / 6, "test_fraction": 2 / 3},
        "teacher": teacher,
        "student": "core/tfidf-logistic",
        "seeds": [0],
    }


def killed_and_finished(folder: Path, rows: int) -> int:
    """Runs twice; the requests that the server had when the first was killed."""
    command = [sys.executable, "-m", "stillhouse", "run", str(folder / "recipe.yaml"), "--out", str(folder / "run")]
    first = subprocess.Popen([*command, "--quiet"])
    while Counter.requests < rows // 2:
        if first.poll() is not None:
            sys.exit("the run ended before it could be killed")
        time.sleep(0.2)
    first.kill()
    first.wait()
    before = Counter.requests
    subprocess.run(command, check=True)
    return before


def main() -> None:
    """Print requests, and how good the model is as a teacher."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chat", description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True, help="the model, e.g. SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with xllamacpp")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--port", type=int, default=8090)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, served(given.python, given.gguf, given.port) as address:
        folder = Path(name)
        os.environ["STILLHOUSE_CACHE"] = str(folder / "cache")
        sentences(given.rows, 0, folder / "news.csv")
        (folder / "recipe.yaml").write_text(json.dumps(recipe(folder / "news.csv", address, given.shots)))
        before = killed_and_finished(folder, given.rows)
        summary = json.loads((folder / "run" / "summary.json").read_text())
    asked, metrics = summary["teacher"]["asked"], summary["teacher"]["metrics"]
    print(f"killed after {before} requests; {Counter.requests} in all, {asked['requests']} kept, {asked['rows']} rows")
    print(json.dumps({"asked": asked, "validation": metrics["val"], "test": metrics["test"]}, indent=1))
    print(json.dumps({each: summary[each]["mean"] for each in ("baseline", "student")}))


if __name__ == "__main__":
    main()
