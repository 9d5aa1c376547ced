"""Asking a language model about many rows: several requests at a time, within a budget, every reply kept at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

from pydantic import Field

from stillhouse.chat.answers import Reply
from stillhouse.chat.client import Client, Refused
from stillhouse.chat.store import Store
from stillhouse.errors import ServiceError
from stillhouse.storage import cache_folder, digest

# What a user may have put there by mistake is not repeated by an error.
Address = Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", repr=False)]
Variable = Annotated[str, Field(pattern=r"^([A-Z_][A-Z0-9_]*)?$", repr=False)]
AtLeastOne = Annotated[int, Field(ge=1)]
Budget = Annotated[int, Field(ge=1)] | None
Seconds = Annotated[float, Field(gt=0)]
Api = Literal["chat", "completions"]

Request = Mapping[str, Any]
"""Path and body, that a reply depends on."""


class Service:
    """A language model behind HTTP, whose replies are paid for once.

    Args:
        where: field of the recipe that has the options, for errors.
        base_url: address of an OpenAI-compatible server, up to and with ``/v1``.
        model: name of the model.
        api_key_env: name of the environment variable with the key; empty for none.
        api: chat completions, or plain completions.
        system: system message; empty for none.
        parameters: further fields of each request; one that is null leaves the field out.
        concurrency: requests at a time.
        timeout: seconds without an answer after which a request has failed.
        retries: attempts after one that failed.
        backoff: seconds before the second attempt, doubled for each further one.
        max_requests: budget of requests that were answered, over all starts; None for none.
        max_tokens: budget of tokens, prompts and replies together; None for none.
    """

    def __init__(
        self,
        *,
        where: str,
        base_url: str,
        model: str,
        api_key_env: str = "",
        api: Api = "chat",
        system: str = "",
        parameters: Mapping[str, Any] | None = None,
        concurrency: int = 4,
        timeout: float = 60.0,
        retries: int = 5,
        backoff: float = 0.5,
        max_requests: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.base_url, self._where = base_url.rstrip("/"), where
        self._model, self._api, self._system, self._parameters = model, api, system, dict(parameters or {})
        self._concurrency, self._max_requests, self._max_tokens = concurrency, max_requests, max_tokens
        self._client = Client(
            base_url,
            key_variable=api_key_env,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            connections=concurrency,
            where=where,
        )
        self.store = Store(cache_folder() / "chat" / "replies.sqlite")
        self._no_logprobs = False

    def request(self, prompt: str, **fields: Any) -> Request:
        """The request for a prompt; ``fields`` are those of its body that are not the same for all."""
        body: dict[str, Any] = {"model": self._model, **fields}
        if self._api == "chat":
            system = [{"role": "system", "content": self._system}] if self._system else []
            body["messages"] = [*system, {"role": "user", "content": prompt}]
        else:
            body["prompt"] = f"{self._system}\n\n{prompt}" if self._system else prompt
        body = {name: value for name, value in {**body, **self._parameters}.items() if value is not None}
        return {"path": "chat/completions" if self._api == "chat" else "completions", "body": body}

    def replies(
        self, user: str, rows: Sequence[int], requests: Sequence[Request], reading: Callable[[Reply], str]
    ) -> list[Reply]:
        """The reply to each request; those that are known are not asked for again.

        Args:
            user: who asks; its uses are noted in the store under this name, and its budget is theirs.
            rows: what each request is about, for errors and notes.
            requests: as `request` makes them.
            reading: how a reply was read, in a word, for the notes.

        Raises:
            ServiceError: the server does not answer, or the budget is spent. What it answered before is kept.
        """
        keys = [digest({"url": self.base_url, "request": request}) for request in requests]
        known = self.store.get(keys)

        def note(replies: Mapping[str, Reply]) -> None:
            uses = [(row, key, reading(replies[key])) for row, key in zip(rows, keys, strict=True) if key in replies]
            self.store.used(user, uses)

        note(known)
        missing = {
            key: (row, request) for row, key, request in zip(rows, keys, requests, strict=True) if key not in known
        }
        if missing:
            try:
                self._ask(missing, self._spent(user))
            finally:
                known |= (new := self.store.get(list(missing)))
                note(new)
        return [known[key] for key in keys]

    def _ask(self, missing: Mapping[str, tuple[int, Request]], spent: list[int]) -> None:
        """Ask for replies, several at a time, and keep each at once; the first error ends it, after those on their way
        have come.

        Args:
            missing: row and request by key.
            spent: requests and tokens so far.
        """
        stop, lock = threading.Event(), threading.Lock()
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
                    self.store.put(key, reply)
                    with lock:
                        spent[1] += self._tokens(reply)
                except BaseException as error:
                    errors.append(error)
                    stop.set()

        workers = min(self._concurrency, len(missing))
        with ThreadPoolExecutor(workers, "stillhouse-chat") as pool:
            try:
                for each in [pool.submit(work) for _ in range(workers)]:
                    each.result()
            finally:
                stop.set()
        if errors:
            raise errors[0]

    def _reply(self, row: int, request: Request, stop: threading.Event) -> Reply:
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
                where=f"{self._where}, max_tokens",
                fix="remove 'max_tokens', and limit 'max_requests' instead",
            )
        return (reply.input_tokens or 0) + (reply.output_tokens or 0)

    def _spent(self, user: str) -> list[int]:
        """Requests and tokens of a user so far, those of earlier starts included."""
        if self._max_requests is None and self._max_tokens is None:
            return [0, 0]
        replies = self.store.replies_of(user)
        return [len(replies), sum(self._tokens(reply) for reply in replies)]

    def _check_budget(self, requests: int, tokens: int) -> None:
        for name, limit, spent in (
            ("max_requests", self._max_requests, requests),
            ("max_tokens", self._max_tokens, tokens),
        ):
            if limit is not None and spent >= limit:
                raise ServiceError(
                    f"the budget is spent: {requests} requests and {tokens} tokens, {name} is {limit}",
                    where=f"{self._where}, {name}",
                    fix=f"raise '{name}' and start again: all answers are kept, and it goes on where it stopped",
                )
