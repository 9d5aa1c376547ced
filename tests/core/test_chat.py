"""A language model behind HTTP as teacher, against a real server of these tests' own."""

from __future__ import annotations

import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

import stillhouse
from stillhouse.cli import main
from stillhouse.data.readers import ColumnsReader
from stillhouse.errors import (
    DataError,
    IncompatibleError,
    MissingDependencyError,
    OptionError,
    RunFolderError,
    ServiceError,
)
from stillhouse.kinds import OutputKind
from stillhouse.plugins.manager import default_manager
from stillhouse.plugins.options import validate_options
from stillhouse.progress import Silent
from stillhouse.storage import cache_folder
from stillhouse.testing.plan import Plan
from stillhouse.types import Batch, DataInfo, DescribingReader, Task, TensorSpec, TensorSplit

pytest.importorskip("httpx")

from stillhouse.chat.answers import EPSILON, Reply, label_masses, named_answer, read_reply
from stillhouse.chat.service import Service
from stillhouse.chat.teacher import ChatTeacher

KEY = "sk-a-key-that-must-stand-nowhere"
ANSWERS = ("red", "green", "blue")
Says = tuple[int, Any] | Callable[[Any], None]


class Server:
    """An OpenAI-compatible server: answers by ``rule``, but first by what is in ``faults``, one for each request."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.answered = 0
        self.faults: list[Says] = []
        self.rule: Callable[[dict[str, Any]], Says] = lambda body: (200, chat(ANSWERS[0]))
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    outer.requests.append(body)
                    outer.headers.append(self.headers)
                    outer.paths.append(self.path)
                    says = outer.faults.pop(0) if outer.faults else outer.rule(body)
                if callable(says):
                    says(self)
                    return
                status, answer = says
                extra = answer.pop("headers", {}) if isinstance(answer, dict) else {}
                content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                with lock:
                    outer.answered += status == 200

            def log_message(self, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that has gone away

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def chat(text: str, logprobs: list[dict[str, float]] | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
    if logprobs is not None:
        choice["logprobs"] = {
            "content": [
                {
                    "token": max(each, key=each.__getitem__),
                    "logprob": max(each.values()),
                    "top_logprobs": [{"token": token, "logprob": value} for token, value in each.items()],
                }
                for each in logprobs
            ]
        }
    return {"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 2}}


def task(kind: OutputKind = OutputKind.MULTICLASS, classes: tuple[str, ...] | None = ANSWERS, width: int = 2) -> Task:
    outputs = 1 if kind is OutputKind.BINARY else 3
    return Task(info=DataInfo(inputs={"x": TensorSpec((width,))}, classes=classes), kind=kind, outputs=outputs, seed=3)


def rows(count: int, first: int = 0) -> TensorSplit:
    """Rows whose numbers tell their id; the class is the id modulo three."""
    index = torch.arange(first, first + count)
    return TensorSplit({"x": torch.stack([index, index + 0.5], 1).float(), "target": index % 3, "index": index})


def teacher(server: Server, given: Task | None = None, **options: Any) -> ChatTeacher:
    quick = {"retries": 2, "backoff": 0.01, "timeout": 5.0}
    values = {"base_url": server.url, "model": "m", **quick, **options}
    return ChatTeacher(given or task(), **values)


def ask(model: ChatTeacher, count: int = 5, first: int = 0) -> torch.Tensor:
    return model(rows(count, first).batch(range(count))).prediction


def prompt_of(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


# What an answer says


def test_log_probabilities_of_the_answers_become_soft_targets(server: Server) -> None:
    logs = {"red": math.log(0.6), " Green": math.log(0.2), "blu": math.log(0.05), "the": math.log(0.1)}
    server.rule = lambda body: (200, chat("red", [logs]))
    model = teacher(server)
    prediction = ask(model, 2)
    expected = torch.tensor([0.6, 0.2, 0.05]) / 0.85
    torch.testing.assert_close(prediction.exp(), expected.expand(2, 3))
    assert (model.facts()["probabilities"], model.facts()["parsed"]) == (2, 0)
    body = server.requests[0]
    assert (body["logprobs"], body["top_logprobs"], body["temperature"], body["model"]) == (True, 20, 0, "m")
    assert server.paths[0] == "/v1/chat/completions"


def test_completions_have_log_probabilities_too_and_a_binary_task_has_one_logit(server: Server) -> None:
    logprobs = {"tokens": [" yes"], "token_logprobs": [math.log(0.7)], "top_logprobs": [{" no": math.log(0.2)}]}
    server.rule = lambda body: (200, {"choices": [{"text": " yes", "logprobs": logprobs}]})
    model = teacher(server, task(OutputKind.BINARY, ("no", "yes")), api="completions")
    prediction = ask(model, 1)
    assert prediction.shape == (1, 1)
    assert prediction.item() == pytest.approx(math.log(0.7 / 0.2), abs=1e-5)
    assert server.paths == ["/v1/completions"]
    assert server.requests[0]["logprobs"] == 5
    assert model.facts()["input_tokens"] is None, "the server does not tell"


def test_answers_that_begin_alike_are_told_apart_by_later_tokens() -> None:
    answers = ("class-1", "class-2", "class-10", "other")
    tokens = [
        ("class", {"class": math.log(0.9), "oth": math.log(0.1)}),
        ("-", {"-": math.log(1.0)}),
        ("1", {"1": math.log(0.8), "2": math.log(0.2)}),
        ("0", {"0": math.log(0.5), "<end>": math.log(0.5)}),
    ]
    masses = label_masses(tokens, answers)
    assert masses[1] == pytest.approx(0.18)
    assert masses[2] == pytest.approx(0.36)
    assert masses[3] == pytest.approx(0.1)
    ended = label_masses(tokens[:3], answers)
    assert ended[0] == pytest.approx(0.72), "the reply ended where 'class-10' could have gone on"


@given(st.lists(st.floats(1e-3, 1), min_size=3, max_size=3), st.floats(0, 1))
def test_probabilities_sum_to_one_and_follow_those_of_the_tokens(shares: list[float], other: float) -> None:
    total = sum(shares) + other
    logs = {word: math.log(share / total) for word, share in zip(ANSWERS, shares, strict=True)}
    reply = Reply(text="", tokens=[(max(logs, key=logs.__getitem__), logs)])
    found, way = read_reply(reply, ANSWERS, confidence=0.9)
    assert sum(found) == pytest.approx(1)
    if way == "probabilities":
        assert found == pytest.approx([share / sum(shares) for share in shares], abs=2 * EPSILON)
    else:
        assert sum(shares) / total < 0.011


@given(st.text(max_size=30), st.lists(st.text(max_size=4), max_size=4))
def test_any_reply_is_read(text: str, tokens: list[str]) -> None:
    written = [(token, {token: -0.5}) for token in tokens]
    found, _ = read_reply(Reply(text=text, tokens=written), ANSWERS, confidence=0.9)
    assert sum(found) == pytest.approx(1)
    assert min(found) > 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("green", 1),
        (" **Green**.\nIt is not red.", 1),
        ("It is clearly blue!", 2),
        ("red or blue", None),
        ("greenish", None),
        ("", None),
    ],
)
def test_replies_are_parsed_only_where_they_name_one_answer(text: str, answer: int | None) -> None:
    assert named_answer(text, ANSWERS) == answer


def test_replies_that_cannot_be_parsed_are_uniform_counted_and_named(server: Server) -> None:
    def rule(body: dict[str, Any]) -> Says:
        number = int(re.findall(r"x: \[(\d+),", prompt_of(body))[-1])
        return 200, chat("green" if number % 2 else "I cannot tell")

    server.rule = rule
    model = teacher(server)
    prediction = ask(model, 14).exp()
    torch.testing.assert_close(prediction[0], torch.full((3,), 1 / 3))
    torch.testing.assert_close(prediction[1], torch.tensor([0.05, 0.9, 0.05]))
    parsed, unparsed = model.remarks()
    assert parsed.startswith("7 of 14 answers of 'm' came without log probabilities")
    assert unparsed.startswith("7 of 14 answers of 'm' name none of the classes")
    assert "(rows 0, 2, 4, 6, 8, ...)" in unparsed


def test_a_server_that_refuses_log_probabilities_is_asked_without(server: Server) -> None:
    def rule(body: dict[str, Any]) -> Says:
        return (400, {"error": {"message": "logprobs unsupported"}}) if "logprobs" in body else (200, chat("blue"))

    server.rule = rule
    model = teacher(server, concurrency=1)
    assert ask(model).argmax(1).tolist() == [2] * 5
    assert len(server.requests) == 6, "one refused, then five"
    server.rule = lambda body: (400, {"error": {"message": "the prompt is too long"}})
    with pytest.raises(ServiceError, match=r"does not take the request.*the prompt is too long") as caught:
        ask(teacher(server), 1, first=77)
    assert caught.value.where.endswith("row 77")


# What is asked


def test_the_template_sees_row_choices_and_examples_of_training_rows_alone(server: Server) -> None:
    train, reader = rows(30), ColumnsReader(columns=("age", "amount"), mean=(10.0, 1000.0), std=(1.0, 2.0))
    template = (
        "{% for each in examples %}{{ each.row.age }}={{ each.answer }};{% endfor %}"
        "{% for answer, name in choices %}{{ answer }}:{{ name }},{% endfor %}{{ row.age }}/{{ row.amount }}"
    )
    options = {"prompt": template, "shots": 2, "answers": ["A", "B", "C"]}
    server.rule = lambda body: (200, chat("B"))
    model = teacher(server, **options)
    model.prepare(train, reader)
    ask(model, 2, first=900)
    prompts = sorted(prompt_of(body) for body in server.requests)
    assert [each.split(",")[-1] for each in prompts] == ["910/2801", "911/2803"], "in the units of the columns"
    assert "A:red,B:green,C:blue" in prompts[0]
    shown = re.findall(r"(\d+)=([ABC]);", prompts[0])
    assert sorted(answer for _, answer in shown) == ["A", "A", "B", "B", "C", "C"]
    assert all("ABC"[(int(age) - 10) % 3] == answer for age, answer in shown)
    assert len(set(shown)) == 6

    again, other = teacher(server, **options), teacher(server, **options)
    again.prepare(train, reader)
    ask(again, 2, first=900)
    assert len(server.requests) == 2, "the same seed shows the same examples"
    assert again.revision == other.revision


def test_a_training_row_is_never_its_own_example(server: Server) -> None:
    model = teacher(server, prompt="{% for e in examples %}<{{ e.row.x[0] }}>{% endfor %}{{ row.x[0] }}", shots=2)
    model.prepare(rows(9), None)
    ask(model, 9)
    for body in server.requests:
        *shown, own = re.findall(r"\d+", prompt_of(body))
        assert own not in shown
        assert len(shown) == 6
    with pytest.raises(DataError, match="class 'red' has 3 training rows, 3 examples need one more"):
        teacher(server, shots=3).prepare(rows(9), None)


def test_columns_name_the_numbers_of_a_row(server: Server) -> None:
    ask(teacher(server, columns=["a", "b"], prompt="{{ row.a }} and {{ row.b }}"), 1, first=7)
    assert prompt_of(server.requests[0]) == "7 and 7.5"
    with pytest.raises(OptionError, match="'columns' has 1 names, a row has 2 numbers"):
        ask(teacher(server, columns=["a"]))


class Spelled:
    """A reader that turns a row into a text, as one with a tokenizer does."""

    def state(self) -> dict[str, Any]:
        return {}

    def describe(self, batch: Batch) -> list[dict[str, Any]]:
        return [{"text": f"case {row}"} for row in batch["index"].tolist()]


def test_texts_come_from_the_reader(server: Server) -> None:
    model = teacher(server, prompt="{{ row.text }}", system="Be brief.")
    model.prepare(rows(3), Spelled())  # type: ignore[arg-type]
    ask(model, 1, first=4)
    assert [each["content"] for each in server.requests[0]["messages"]] == ["Be brief.", "case 4"]


@pytest.mark.parametrize(
    ("template", "what", "where"),
    [
        ("{{ row.x }} {{ row.colour }}", "has no attribute 'colour'", "prompt, row 0"),
        ("{{ rows }}", "'rows' is undefined", "prompt, row 0"),
        ("one\n{% for %}", "not a Jinja template", "prompt, line 2"),
        ("{{ row.x + 'a' }}", "cannot be filled in: TypeError", "prompt, row 0"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|undefined|no attribute", "prompt, row 0"),
    ],
)
def test_what_is_wrong_with_a_template_is_told(server: Server, template: str, what: str, where: str) -> None:
    with pytest.raises(OptionError, match=what) as caught:
        ask(teacher(server, prompt=template), 1)
    assert caught.value.where == where
    assert not server.requests


def test_what_cannot_be_asked_is_told(server: Server) -> None:
    wide = TensorSplit({"x": torch.zeros(1, 600)})
    with pytest.raises(IncompatibleError, match="a row has 600 numbers and no text"):
        teacher(server, task(width=600))(wide.batch([0]))
    for answers, what in (
        (["a"], "1 replies, the task has 3"),
        (["a", "A", "b"], "the same"),
        (["a", " ", "b"], "empty"),
    ):
        with pytest.raises(OptionError, match=what):
            teacher(server, answers=answers)
    with pytest.raises(OptionError, match="0 replies"):
        teacher(server, task(classes=None))


def test_parameters_change_the_request_and_repeated_prompts_are_asked_once(server: Server) -> None:
    model = teacher(server, prompt="always the same", parameters={"temperature": None, "seed": 5})
    ask(model, 6)
    (body,) = server.requests
    assert body["seed"] == 5
    assert "temperature" not in body
    facts = model.facts()
    assert (facts["rows"], facts["requests"]) == (6, 1)


# Faults


def reset(handler: Any) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    handler.connection.close()


def truncated(handler: Any) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def slow(handler: Any) -> None:
    time.sleep(0.6)


PASSING: dict[str, tuple[Says, str]] = {
    "429": ((429, {"error": {"message": "slow down"}}), "status 429: slow down"),
    "500": ((500, "oops"), "status 500: oops"),
    "503 without words": ((503, ""), "it says nothing"),
    "broken JSON": ((200, '{"choices": ['), "cannot be read"),
    "no choices": ((200, {"choices": []}), "cannot be read"),
    "another shape": ((200, {"choices": [{"message": None}]}), "cannot be read"),
    "truncated": (truncated, "peer closed|incomplete"),
    "reset": (reset, "Error"),
    "slow": (slow, r"no answer within 0\.2 s"),
}


@pytest.mark.parametrize("name", PASSING)
def test_faults_that_pass_are_tried_again_and_those_that_stay_are_one_error(server: Server, name: str) -> None:
    fault, what = PASSING[name]
    options = {"timeout": 0.2 if name == "slow" else 5.0, "concurrency": 1}
    server.faults = [fault]
    model = teacher(server, **options)
    assert ask(model, 2).argmax(1).tolist() == [0, 0]
    assert len(server.requests) == 3
    assert model.facts()["retries"] == 1

    server.faults = [fault] * 3
    with pytest.raises(ServiceError, match=f"asked 3 times and did not answer: .*(?:{what})") as caught:
        ask(teacher(server, **options), 4)
    assert "it goes on where it stopped" in caught.value.fix
    before = len(server.requests)
    ask(teacher(server, **options), 4)
    assert len(server.requests) == before + 2, "rows 0 and 1 are known"


def test_a_wait_that_the_server_asks_for_is_kept(server: Server) -> None:
    server.faults = [(429, {"headers": {"retry-after": "1"}})]
    began = time.monotonic()
    ask(teacher(server), 1)
    assert time.monotonic() - began >= 1.0
    server.faults = [(503, {"headers": {"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}})]
    with pytest.raises(ServiceError, match="asks to wait for"):
        ask(teacher(server), 1, first=50)
    server.faults = [(429, {"headers": {"retry-after": "soon"}})]
    ask(teacher(server), 1, first=60)


@pytest.mark.parametrize(
    ("status", "what"), [(401, "refuses the key"), (403, "refuses the key"), (404, "has no model 'm'"), (301, "take")]
)
def test_faults_that_stay_are_told_at_once(server: Server, status: int, what: str) -> None:
    server.rule = lambda body: (status, {"error": {"message": "no"}})
    with pytest.raises(ServiceError, match=what):
        ask(teacher(server, concurrency=1))
    assert len(server.requests) <= 2


def test_a_server_that_is_down_is_told(server: Server) -> None:
    server.close()
    with pytest.raises(ServiceError, match="asked 3 times and did not answer") as caught:
        ask(teacher(server), 1)
    assert caught.value.exit_code == 2
    assert server.url in caught.value.where


def test_the_budget_of_requests_stops_and_a_higher_one_goes_on(server: Server) -> None:
    with pytest.raises(ServiceError, match="is spent: 3 requests and 66 tokens, max_requests is 3") as caught:
        ask(teacher(server, max_requests=3, concurrency=1))
    assert caught.value.where == "teacher, max_requests"
    with pytest.raises(ServiceError, match="budget is spent"):  # what was asked before counts
        ask(teacher(server, max_requests=3))
    assert len(server.requests) == 3
    ask(teacher(server, max_requests=5))
    assert len(server.requests) == 5


def test_the_budget_of_tokens_stops_and_needs_a_server_that_counts(server: Server) -> None:
    with pytest.raises(ServiceError, match="2 requests and 44 tokens, max_tokens is 30"):
        ask(teacher(server, max_tokens=30, concurrency=1))
    server.rule = lambda body: (200, {"choices": [{"message": {"content": "red"}}]})
    with pytest.raises(ServiceError, match="does not tell how many tokens"):
        ask(teacher(server, max_tokens=300), first=20)


def test_several_requests_are_on_their_way_at_a_time_and_no_more_than_asked_for(server: Server) -> None:
    here, most, lock = 0, 0, threading.Lock()

    def rule(body: dict[str, Any]) -> Says:
        def answer(handler: Any) -> None:
            nonlocal here, most
            with lock:
                here += 1
                most = max(most, here)
            time.sleep(0.05)
            with lock:
                here -= 1
            content = json.dumps(chat("red")).encode()
            handler.send_response(200)
            handler.send_header("content-length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        return answer

    server.rule = rule
    ask(teacher(server, concurrency=3), 9)
    assert most == 3


def test_a_damaged_store_is_named(server: Server) -> None:
    path = cache_folder() / "chat" / "replies.sqlite"
    path.parent.mkdir(parents=True)
    path.write_text("this is no database " * 100)
    with pytest.raises(RunFolderError, match="cannot be kept or read") as caught:
        ask(teacher(server))
    assert caught.value.where == str(path)


# The key


def holds_key(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_key_comes_from_the_environment_and_stands_nowhere_else(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ServiceError, match="the environment variable CHAT_KEY is not set"):
        ask(teacher(server, api_key_env="CHAT_KEY"))
    monkeypatch.setenv("CHAT_KEY", f"{KEY}é")
    with pytest.raises(ServiceError, match="holds characters that no key has") as caught:
        ask(teacher(server, api_key_env="CHAT_KEY"))
    assert KEY not in str(caught.value)

    monkeypatch.setenv("CHAT_KEY", KEY)
    server.rule = lambda body: (200, chat(f"red, and {KEY}"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(chat_recipe(server, api_key_env="CHAT_KEY")))
    assert main(["run", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert all(each["authorization"] == f"Bearer {KEY}" for each in server.headers)
    server.rule = lambda body: (401, {"error": {"message": f"Incorrect API key provided: {KEY}"}})
    changed = chat_recipe(server, api_key_env="CHAT_KEY", prompt="{{ row.x[0] }}")
    recipe.write_text(json.dumps(changed))
    assert main(["run", str(recipe), "--out", str(tmp_path / "other")]) == 2
    said = capsys.readouterr()
    assert "refuses the key" in said.err
    assert KEY not in said.out + said.err
    assert holds_key(tmp_path) == []
    assert holds_key(cache_folder()) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("api_key_env", KEY), ("base_url", f"http://user:{KEY}@host/v1"), ("base_url", f"http://h/?k={KEY}")],
)
def test_a_key_in_the_recipe_is_refused_without_repeating_it(option: str, value: str) -> None:
    component = default_manager().registry.get("teacher", "core/chat")
    with pytest.raises(OptionError, match=f"option '{option}'.*does not take this value") as caught:
        validate_options(component, {"base_url": "http://127.0.0.1/v1", "model": "m", option: value})
    assert KEY not in str(caught.value)


# Runs


def chat_recipe(server: Server, **options: Any) -> dict[str, Any]:
    quick = {"retries": 1, "backoff": 0.01, "logprobs": 0}
    return {
        "name": "chat",
        "head": "core/multiclass",
        "dataset": {"use": "core/synthetic", "rows": 80, "classes": 3},
        "teacher": {
            "use": "core/chat",
            "base_url": server.url,
            "model": "m",
            "answers": list(ANSWERS),
            **quick,
            **options,
        },
        "student": {"use": "core/mlp", "hidden": [4]},
        "train": {"student": {"epochs": 2, "batch_size": 32}},
        "evaluate": {"latency_samples": 20, "throughput_batch": 8},
        "seeds": [0],
    }


def by_sign(body: dict[str, Any]) -> Says:
    numbers = [float(each) for each in re.findall(r"x: \[(.*)\]", prompt_of(body))[-1].split(",")]
    return 200, chat(ANSWERS[sum(each > 0 for each in numbers[:2])])


class Killed(BaseException):
    """What nothing catches."""


def test_a_run_that_is_killed_asks_nothing_twice_and_ends_with_the_same_numbers(server: Server, tmp_path: Path) -> None:
    options = {"price_per_million_input": 2.0, "price_per_million_output": 5.0}

    def killing(body: dict[str, Any]) -> Says:
        if len(server.requests) > 30:
            kill.set()
        return by_sign(body)

    kill = threading.Event()
    genuine = Service._reply

    def reply(self: Service, *args: Any) -> Reply:
        if kill.is_set():
            raise Killed
        return genuine(self, *args)

    server.rule = killing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Service, "_reply", reply)
        with pytest.raises(Killed):
            stillhouse.run(chat_recipe(server, **options), out=tmp_path / "run")
    server.rule = by_sign
    asked = len(server.requests)
    assert 30 < asked < 80
    result = stillhouse.run(chat_recipe(server, **options), out=tmp_path / "run")
    assert len(server.requests) == 80, "requests made equal rows asked"
    facts = result.summary["teacher"]["asked"]
    assert (facts["rows"], facts["requests"], facts["parsed"], facts["unparsed"]) == (80, 80, 80, 0)
    assert (facts["input_tokens"], facts["output_tokens"]) == (1600, 160)
    assert facts["price"] == pytest.approx(1600 * 2e-6 + 160 * 5e-6)
    assert facts["price_per_row"] == pytest.approx(facts["price"] / 80)
    assert 0 < facts["ms_per_row"] == pytest.approx(1000 * facts["seconds"] / 80, rel=0.01)
    assert result.report is not None
    assert "Answer of a service" in result.report.read_text()

    server.close()
    without = stillhouse.run(chat_recipe(server, **options), out=tmp_path / "again")
    assert without.summary["student"]["metrics"] == result.summary["student"]["metrics"], "no server is needed now"
    assert without.summary["teacher"]["asked"] == facts


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_a_run_says_once_what_could_not_be_parsed_and_examples_come_from_its_training_rows(
    server: Server, tmp_path: Path
) -> None:
    server.rule = lambda body: (200, chat("who knows"))
    heard, template = Heard(), "{% for e in examples %}{{ e.row.x }}={{ e.answer }};{% endfor %}{{ row.x }}"
    run = stillhouse.run(chat_recipe(server, shots=1, prompt=template), out=tmp_path / "run", reporter=heard)
    (said,) = [each for each in run.summary["warnings"] if "name none of the classes" in each]
    assert said.startswith("80 of 80 answers of 'm'")
    assert heard.warnings.count(said) == 1
    component = default_manager().registry.get("dataset", "core/synthetic")
    context = stillhouse.types.DataContext(root=tmp_path, base=tmp_path)
    splits = component.load()(context, rows=80, classes=3)
    train = {tuple(f"{value:.6g}" for value in row) for row in splits.train.columns(["x"])["x"].tolist()}
    for body in server.requests:
        for shown in re.findall(r"\[([^]]*)\]=", prompt_of(body)):
            assert tuple(each.strip() for each in shown.split(",")) in train


def test_an_error_of_the_service_ends_the_command_with_status_2(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(chat_recipe(server, max_requests=10)))
    assert main(["run", str(recipe), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "the budget is spent: 10 requests" in said
    assert "Traceback" not in said
    recipe.write_text(json.dumps(chat_recipe(server, max_requests=100)))
    assert main(["run", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert len(server.requests) == 80


def test_an_ensemble_adds_up_what_its_members_cost(server: Server, tmp_path: Path) -> None:
    recipe = chat_recipe(server)
    one = recipe["teacher"]
    recipe["teacher"] = {"members": [one, {**one, "model": "n"}, {"use": "core/random-forest", "n_estimators": 3}]}
    asked = stillhouse.run(recipe, out=tmp_path / "run").summary["teacher"]["asked"]
    assert (asked["requests"], asked["price"]) == (160, None)


def test_without_httpx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingDependencyError, match="needs the package 'httpx'") as caught:
        default_manager().registry.get("teacher", "core/chat").load()
    assert caught.value.fix == "pip install 'stillhouse[chat]'"


@pytest.mark.parametrize("there", [True, False])
def test_the_contract_asks_a_server_that_it_is_given(server: Server, there: bool) -> None:
    options = {"base_url": server.url, "model": "m", "retries": 0}
    server.rule = lambda body: (200, chat("class-0"))
    if not there:
        server.close()
    manager = default_manager()
    (record,) = [each for each in manager.records if each.name == "core"]
    outcome = Plan(manager, record, options={"core/chat": options}).run("forward[teacher:core/chat]")
    assert outcome.outcome == ("passed" if there else "skipped"), outcome
    assert bool(server.requests) is there


@pytest.mark.parametrize("there", [True, False])
def test_the_contract_has_rows_written_by_a_server_that_it_is_given(server: Server, there: bool) -> None:
    pytest.importorskip("transformers")
    options = {"base_url": server.url, "model": "m", "retries": 0}
    server.rule = lambda body: (200, chat(f"words that nobody wrote before, number {body['seed']}"))
    if not there:
        server.close()
    manager = default_manager()
    (record,) = [each for each in manager.records if each.name == "core"]
    plan = Plan(manager, record, options={"core/chat-texts": options})
    for check in ("rows", "same-seed", "training-rows"):
        outcome = plan.run(f"{check}[augmenter:core/chat-texts]")
        assert outcome.outcome == ("passed" if there else "skipped"), outcome
    assert bool(server.requests) is there


def test_a_process_that_is_killed_loses_what_was_on_its_way_and_nothing_else(server: Server, tmp_path: Path) -> None:
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps(chat_recipe(server, concurrency=1)))
    code = "import stillhouse, sys; stillhouse.run(sys.argv[1], out=sys.argv[2])"
    started = threading.Event()

    def killing(body: dict[str, Any]) -> Says:
        if len(server.requests) == 31:
            started.wait(60)
            process.kill()
            process.wait()
        return by_sign(body)

    server.rule = killing
    process = subprocess.Popen([sys.executable, "-c", code, str(recipe), str(folder)])
    started.set()
    assert process.wait(timeout=120) == -signal.SIGKILL
    server.rule = by_sign
    stillhouse.run(recipe, out=folder)
    assert len(server.requests) == 80 + 1


def test_texts_of_a_dataset_are_asked_about_word_for_word(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    recipe = chat_recipe(server, answers=["good", "bad", "neutral"], prompt="{{ row.text }}", shots=1)
    recipe["dataset"] = {"use": "core/synthetic-text", "rows": 60}
    recipe["student"] = {"use": "core/tfidf-logistic"}
    server.rule = lambda body: (200, chat("good"))
    stillhouse.run(recipe, out=tmp_path / "run", stop_after="teacher")
    prompts = {prompt_of(body) for body in server.requests}
    assert prompts
    assert all(re.search(r" \. report \d+$", each) for each in prompts), "blanks are as they were written"


def text_recipe(server: Server, **options: Any) -> dict[str, Any]:
    """Texts whose training rows a model writes again, labelled by a forest of words."""
    service = {"base_url": server.url, "model": "m", "retries": 1, "backoff": 0.01}
    return {
        "dataset": {"use": "core/synthetic-text", "rows": 60},
        "head": "core/multiclass",
        "teacher": {"use": "core/tfidf-logistic"},
        "student": {"use": "core/text-encoder", "embedding": 4, "width": 4, "layers": 1},
        "extra_rows": {"use": "core/chat-texts", "per_row": 0.5, **service, **options},
        "train": {"student": {"epochs": 1, "batch_size": 16}},
        "seeds": [0],
    }


def test_texts_in_other_words_are_labelled_by_the_teacher_and_asked_for_once(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    server.rule = lambda body: (200, chat(f'"{prompt_of(body).splitlines()[-1]} indeed"\n\nDo you like it?'))
    result = stillhouse.run(text_recipe(server), out=tmp_path / "run")
    splits = (
        default_manager()
        .registry.get("dataset", "core/synthetic-text")
        .load()(stillhouse.types.DataContext(root=tmp_path, base=tmp_path), rows=60)
    )
    training = {each["text"] for each in splits.reader.describe(splits.train.batch(range(len(splits.train))))}
    asked = [prompt_of(body).splitlines()[-1] for body in server.requests]
    assert len(asked) == round(0.5 * len(splits.train)) == result.summary["extra_rows"]["rows"]
    assert set(asked) <= training
    assert len(set(asked)) == len(asked), "every text as often as any other"
    assert len({body["seed"] for body in server.requests}) == len(asked)
    facts = result.summary["extra_rows"]["asked"]
    assert (facts["requests"], facts["input_tokens"], facts["copies_left_out"]) == (len(asked), 20 * len(asked), 0)
    assert result.report is not None
    assert f"A service wrote them: {len(asked)} requests" in result.report.read_text()
    stillhouse.run(text_recipe(server), out=tmp_path / "again")
    assert len(server.requests) == len(asked), "what was written is kept"


def test_new_texts_are_asked_for_of_the_classes_that_have_the_fewest(server: Server) -> None:
    pytest.importorskip("tokenizers")
    from stillhouse.chat.writers import ChatTexts
    from stillhouse.text import text_splits

    texts = [f"{word} number {number}" for word, count in (("red", 30), ("blue", 10)) for number in range(count)]
    target = [0] * 30 + [1] * 10
    splits = text_splits(texts, target, classes=("red", "blue"), seed=0, vocabulary=100, overlap=1.0)
    few = int((splits.train.columns(["target"])["target"] == 1).sum())
    more = len(splits.train) - 2 * few
    server.rule = lambda body: (200, chat("blue indeed"))
    writer = ChatTexts(base_url=server.url, model="m", write="classes", shots=2, names=["a red one", "a blue one"])
    writer.prepare(splits.reader)
    made = writer(splits.train, splits.info, more + 4, 0)
    prompts = [prompt_of(body) for body in server.requests]
    assert len(made) == len(prompts) == more + 4
    wanted = [re.findall(r'kind "(.*?)"', each)[0] for each in prompts]
    assert (wanted.count("a blue one"), wanted.count("a red one")) == (more + 2, 2)
    for prompt, name in zip(prompts, wanted, strict=True):
        examples = re.findall(r"^- (\w+) number", prompt, re.MULTILINE)
        assert examples == [name.split()[1]] * 2, "examples are training texts of the class"
    assert "target" not in made.row(0)


def test_copies_of_held_out_texts_and_empty_replies_make_no_rows(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    splits = (
        default_manager()
        .registry.get("dataset", "core/synthetic-text")
        .load()(stillhouse.types.DataContext(root=tmp_path, base=tmp_path), rows=60)
    )
    held_out = splits.reader.describe(splits.test.batch([0]))[0]["text"]
    says = iter([held_out.upper(), "", "quite new"])
    server.rule = lambda body: (200, chat(next(says, "something else")))
    heard = Heard()
    run = stillhouse.run(text_recipe(server, concurrency=1), out=tmp_path / "run", reporter=heard)
    wanted = len(server.requests)
    assert run.summary["extra_rows"]["rows"] == wanted - 2
    assert run.summary["extra_rows"]["asked"]["copies_left_out"] == 1
    assert any(f"brought {wanted - 2} of the {wanted} rows" in each for each in heard.warnings)


def test_writers_are_refused_where_they_have_nothing_to_write(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    server.rule = lambda body: (200, chat(" \n"))
    with pytest.raises(DataError, match="replies of the language model are empty"):
        stillhouse.run(text_recipe(server), out=tmp_path / "run")
    with pytest.raises(IncompatibleError, match="'names' has 2 classes in words, the dataset has 3"):
        stillhouse.run(text_recipe(server, write="classes", names=["a", "b"]), out=tmp_path / "run")
    with pytest.raises(OptionError, match="names what there is not") as error:
        stillhouse.run(text_recipe(server, prompt="{{ rows.text }}"), out=tmp_path / "run")
    assert "text" in error.value.fix


def test_a_check_of_a_recipe_asks_for_no_rows(server: Server) -> None:
    pytest.importorskip("transformers")
    from stillhouse.pipeline.checking import check

    assert check(text_recipe(server)).problems == []
    assert server.requests == []


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_reader_of_texts_describes_rows_and_what_an_augmenter_made_of_them(kind: str) -> None:
    pytest.importorskip("tokenizers")
    from stillhouse.text import text_splits

    texts = [f"The Pump No. {number} leaks  oil (2.5 bar)!" for number in range(40)]
    target = [number % 2 for number in range(40)]
    splits = text_splits(texts, target, classes=("a", "b"), seed=0, tokenizer=kind, vocabulary=120, overlap=1.0)
    assert isinstance(splits.reader, DescribingReader)
    batch = splits.test.batch(range(len(splits.test)))
    described = [each["text"] for each in splits.reader.describe(batch)]
    assert described == [texts[row] for row in batch["index"].tolist()]
    changed = {**batch, "tokens": batch["tokens"].clone()}
    changed["tokens"][:, 1] = changed["tokens"][:, 2]
    again = type(splits.reader).from_state(json.loads(json.dumps(splits.reader.state())))
    assert splits.reader.describe(changed) == again.describe(changed), "made of tokens alone"
    assert "leaks" in again.describe(changed)[0]["text"]


def test_the_template_of_the_documentation_works(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "chat.md").read_text(encoding="utf-8")
    (options,) = [
        yaml.safe_load(each)["teacher"] for each in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "shots" in each
    ]
    assert options.pop("use") == "core/chat"
    model = teacher(server, task(OutputKind.BINARY, ("0", "1")), columns=["amount", "country"], **options)
    train = TensorSplit({**rows(20).columns(["x", "index"]), "target": torch.arange(20) % 2})
    model.prepare(train, None)
    ask(model, 1, first=50)
    *shown, own = prompt_of(server.requests[0]).splitlines()
    assert own == "50 in 50.5:"
    assert sorted(each.rpartition(" ")[2] for each in shown) == ["fine", "fine", "fraud", "fraud"]
