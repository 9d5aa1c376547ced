"""``core/chat``: a language model behind HTTP as a teacher that is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from stillhouse.chat.answers import PARSED, UNPARSED, Reply, read_reply
from stillhouse.chat.client import Client, Refused
from stillhouse.chat.prompts import TEMPLATE, Prompts
from stillhouse.chat.store import Store
from stillhouse.errors import OptionError, ServiceError
from stillhouse.kinds import OutputKind
from stillhouse.storage import cache_folder, digest
from stillhouse.types import Batch, Outputs, Reader, Split, Task

READING = 1
"""Version of how replies become predictions; part of the revision."""

# What a user may have put there by mistake is not repeated by an error.
Address = Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", repr=False)]
Variable = Annotated[str, Field(pattern=r"^([A-Z_][A-Z0-9_]*)?$", repr=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
Budget = Annotated[int, Field(ge=1)] | None
Price = Annotated[float, Field(ge=0)] | None


class ChatTeacher:
    """A language model behind HTTP that says which class a row has; a `stillhouse.teachers.AskedTeacher`.

    Args:
        task: classes to choose from.
        base_url: address of an OpenAI-compatible server, up to and with ``/v1``; without user, password and query.
        model: name of the model, as the server has it.
        api_key_env: name of the environment variable that holds the key; empty for servers without one.
        api: chat completions, or plain completions for models without a chat template.
        prompt: Jinja template over ``row``, ``choices`` and ``examples``.
        system: system message of a chat; empty for none.
        answers: reply wanted for each class, in their order; the names of the classes by default.
        columns: names of the row's numbers, for ``{{ row.name }}``; by default the dataset's reader tells them.
        shots: training rows of each class that are shown as examples.
        logprobs: likeliest tokens that the server is asked for at each position (plain completions: at most 5); 0: what
            it writes is parsed.
        confidence: probability of the class that a reply names, where no log probabilities tell it.
        reply_tokens: longest reply.
        parameters: further fields of the request; one that is null leaves the field out.
        concurrency: requests at a time.
        timeout: seconds without an answer after which a request has failed.
        retries: attempts after one that failed, for errors that may pass.
        backoff: seconds before the second attempt, doubled for each further one.
        max_requests: budget of requests that were answered, over all starts of the run; none by default.
        max_tokens: budget of tokens, prompts and replies together; none by default.
        price_per_million_input: price of a million tokens of prompts; unknown by default.
        price_per_million_output: price of a million tokens of replies.

    Raises:
        OptionError: the template is not Jinja, or ``answers`` does not fit the classes.
    """

    def __init__(
        self,
        task: Task,
        *,
        base_url: Address,
        model: Annotated[str, Field(min_length=1)],
        api_key_env: Variable = "",
        api: Literal["chat", "completions"] = "chat",
        prompt: str = TEMPLATE,
        system: str = "",
        answers: list[str] = [],  # noqa: B006  never changed
        columns: list[str] = [],  # noqa: B006
        shots: Annotated[int, Field(ge=0)] = 0,
        logprobs: Annotated[int, Field(ge=0)] = 20,
        confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9,
        reply_tokens: AtLeastOne = 8,
        parameters: dict[str, Any] = {},  # noqa: B006
        concurrency: AtLeastOne = 4,
        timeout: Annotated[float, Field(gt=0)] = 60.0,
        retries: Annotated[int, Field(ge=0)] = 5,
        backoff: Annotated[float, Field(ge=0)] = 0.5,
        max_requests: Budget = None,
        max_tokens: Budget = None,
        price_per_million_input: Price = None,
        price_per_million_output: Price = None,
    ) -> None:
        self._task, self._answers = task, _answers(task, answers)
        self._model, self._api, self._system = model, api, system
        self._base_url, self._reply_tokens, self._parameters = base_url.rstrip("/"), reply_tokens, dict(parameters)
        self._logprobs = min(logprobs, 5) if api == "completions" else logprobs
        self._shots, self._confidence, self._concurrency = shots, confidence, concurrency
        self._max_requests, self._max_tokens = max_requests, max_tokens
        self._prices = (price_per_million_input, price_per_million_output)
        self._prompts = Prompts(prompt, info=task.info, answers=self._answers, columns=columns)
        self._client = Client(
            base_url,
            key_variable=api_key_env,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            connections=concurrency,
        )
        self._store = Store(cache_folder() / "chat" / "replies.sqlite")
        self._no_logprobs = False
        asked = [
            READING,
            self._base_url,
            self._request(""),
            prompt,
            self._answers,
            columns,
            shots,
            confidence,
            task.seed,
        ]
        self.revision = digest(asked)
        self._name = self.revision

    def prepare(self, train: Split, reader: Reader | None) -> None:
        """See `stillhouse.teachers.AskedTeacher`."""
        self._prompts.prepare(train, reader, shots=self._shots, seed=self._task.seed)
        self._name = digest([self.revision, train.fingerprint()])

    def __call__(self, batch: Batch) -> Outputs:
        """See `stillhouse.teachers.TeacherSource`; replies that are known are not asked for again.

        Raises:
            ServiceError: the server does not answer, or the budget is spent. What it answered before is kept.
        """
        requests = [self._request(prompt) for prompt in self._prompts.of(batch)]
        keys = [digest({"url": self._base_url, "request": request}) for request in requests]
        known = self._store.get(keys)
        self._note(batch, keys, known)
        rows = batch["index"].tolist()
        missing = {
            key: (row, request) for row, key, request in zip(rows, keys, requests, strict=True) if key not in known
        }
        if missing:
            try:
                self._ask(missing)
            finally:
                known |= (new := self._store.get(list(missing)))
                self._note(batch, keys, new)
        read = [read_reply(known[key], self._answers, confidence=self._confidence)[0] for key in keys]
        logs = torch.tensor(read, dtype=torch.float64).log()
        if self._task.kind is OutputKind.BINARY:
            logs = logs[:, 1:] - logs[:, :1]
        return Outputs(logs.float().to(batch["index"].device))

    def _request(self, prompt: str) -> dict[str, Any]:
        """The request, path and body, that the reply to a prompt depends on."""
        body: dict[str, Any] = {"model": self._model, "max_tokens": self._reply_tokens, "temperature": 0}
        if self._api == "chat":
            system = [{"role": "system", "content": self._system}] if self._system else []
            body["messages"] = [*system, {"role": "user", "content": prompt}]
            body |= {"logprobs": True, "top_logprobs": self._logprobs} if self._logprobs else {}
        else:
            body["prompt"] = f"{self._system}\n\n{prompt}" if self._system else prompt
            body |= {"logprobs": self._logprobs} if self._logprobs else {}
        body = {name: value for name, value in {**body, **self._parameters}.items() if value is not None}
        return {"path": "chat/completions" if self._api == "chat" else "completions", "body": body}

    def _ask(self, missing: Mapping[str, tuple[int, Mapping[str, Any]]]) -> None:
        """Ask for replies, several at a time, and keep each at once; the first error ends it, after those on their way
        have come.

        Args:
            missing: row and request by key.
        """
        spent, stop, lock = self._spent(), threading.Event(), threading.Lock()
        left = [(key, row, request) for key, (row, request) in missing.items()][::-1]
        errors: list[BaseException] = []

        def work() -> None:
            while not stop.is_set():
                try:
                    with lock:
                        if not left:
                            return
                        self._check_budget(*spent)
                        spent[0] += 1
                        key, row, request = left.pop()
                    reply = self._reply(row, request, stop)
                    self._store.put(key, reply)
                    with lock:
                        spent[1] += self._tokens(reply)
                except BaseException as error:
                    errors.append(error)
                    stop.set()

        with ThreadPoolExecutor(min(self._concurrency, len(missing)), "stillhouse-chat") as pool:
            try:
                for each in [pool.submit(work) for _ in range(min(self._concurrency, len(missing)))]:
                    each.result()
            finally:
                stop.set()
        if errors:
            raise errors[0]

    def _reply(self, row: int, request: Mapping[str, Any], stop: threading.Event) -> Reply:
        path, body = request["path"], request["body"]
        plain = {name: value for name, value in body.items() if name not in ("logprobs", "top_logprobs")}
        if plain != body and not self._no_logprobs:
            try:
                return self._client.ask(path, body, stop)
            except Refused:
                pass  # many servers have no log probabilities; were these not the reason, the next answer tells it
        try:
            reply = self._client.ask(path, plain, stop)
        except Refused as error:
            raise ServiceError(error.what, where=f"{error.where}, row {row}", fix=error.fix) from None
        self._no_logprobs = True
        return reply

    def _tokens(self, reply: Reply) -> int:
        if self._max_tokens is not None and (reply.input_tokens is None or reply.output_tokens is None):
            raise ServiceError(
                "the server does not tell how many tokens a request took, so that their budget cannot be kept",
                where="teacher, max_tokens",
                fix="remove 'max_tokens', and limit 'max_requests' instead",
            )
        return (reply.input_tokens or 0) + (reply.output_tokens or 0)

    def _spent(self) -> list[int]:
        """Requests and tokens of this teacher so far, those of earlier starts included."""
        if self._max_requests is None and self._max_tokens is None:
            return [0, 0]
        replies = self._store.replies_of(self._name)
        return [len(replies), sum(self._tokens(reply) for reply in replies)]

    def _check_budget(self, requests: int, tokens: int) -> None:
        for name, limit, spent in (
            ("max_requests", self._max_requests, requests),
            ("max_tokens", self._max_tokens, tokens),
        ):
            if limit is not None and spent >= limit:
                raise ServiceError(
                    f"the budget is spent: {requests} requests and {tokens} tokens, {name} is {limit}",
                    where=f"teacher, {name}",
                    fix=f"raise '{name}' and start again: all answers are kept, and it goes on where it stopped",
                )

    def _note(self, batch: Batch, keys: Sequence[str], known: Mapping[str, Reply]) -> None:
        uses = [
            (row, key, read_reply(known[key], self._answers, confidence=self._confidence)[1])
            for row, key in zip(batch["index"].tolist(), keys, strict=True)
            if key in known
        ]
        self._store.used(self._name, uses)

    def facts(self) -> dict[str, Any]:
        """See `stillhouse.teachers.AskedTeacher`: what was asked for these training rows, over all starts and runs that
        share the replies. ``seconds`` is the sum over requests of the time to the answer, as measured while others were
        on their way; ``price`` and the tokens are None where they are not known."""
        replies, readings = self._store.replies_of(self._name), self._store.readings(self._name)
        seconds, rows = sum(reply.seconds for reply in replies), readings["rows"]
        tokens = [
            None if any(count is None for count in counts) else sum(count or 0 for count in counts)
            for counts in ([each.input_tokens for each in replies], [each.output_tokens for each in replies])
        ]
        price = None
        if None not in tokens and None not in self._prices:
            price = sum((count or 0) * (each or 0) / 1e6 for count, each in zip(tokens, self._prices, strict=True))
        return {
            "rows": rows,
            "requests": len(replies),
            "retries": sum(reply.retries for reply in replies),
            "input_tokens": tokens[0],
            "output_tokens": tokens[1],
            "seconds": round(seconds, 3),
            "ms_per_row": round(1000 * seconds / len(replies), 3) if replies else None,
            "price": price,
            "price_per_row": price / rows if price is not None and rows else None,
            **{name: readings[name] for name in ("probabilities", PARSED, UNPARSED)},
        }

    def remarks(self) -> list[str]:
        """See `stillhouse.teachers.AskedTeacher`."""
        readings, found = self._store.readings(self._name), []
        if self._logprobs and readings[PARSED]:
            found.append(
                f"{readings[PARSED]} of {readings['rows']} answers of '{self._model}' came without log probabilities "
                f"of the classes: the class that the reply names has the probability {self._confidence:g} (confidence)"
            )
        if readings[UNPARSED]:
            found.append(
                f"{readings[UNPARSED]} of {readings['rows']} answers of '{self._model}' name none of the classes, or "
                f"several: all classes are equally likely there (rows {', '.join(map(str, readings['first']))}"
                f"{', ...' if readings[UNPARSED] > len(readings['first']) else ''})"
            )
        return found


def _answers(task: Task, given: Sequence[str]) -> list[str]:
    wanted = 2 if task.kind is OutputKind.BINARY else task.outputs
    answers = list(given) or list(task.info.classes or ())
    problem = ""
    if len(answers) != wanted:
        problem = f"'answers' has {len(answers)} replies, the task has {wanted} classes"
    elif any(not each.strip() for each in answers):
        problem = "one of 'answers' is empty"
    elif len({each.casefold() for each in answers}) != wanted:
        problem = f"two of 'answers' are the same: {json.dumps(answers)}"
    if problem:
        raise OptionError(problem, where="teacher, answers", fix="give one word for each class, in their order")
    return answers
