"""Requests to an OpenAI-compatible server: sent again where that can help, one clear error where it cannot."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from stillhouse.chat.answers import Reply
from stillhouse.errors import ServiceError

LONGEST_WAIT = 60.0
"""Seconds that a growing pause between two attempts does not exceed."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds that a server may ask to wait; when it asks for more, the run stops and says so."""
SHOWN = 300
"""Characters of a server's own message that an error repeats."""


class Refused(ServiceError):
    """The server does not take the request as it is; it may take another one."""


class Client:
    """Sends prompts; threads may share it.

    Args:
        base_url: address before ``/chat/completions``.
        key_variable: name of the environment variable with the key; empty for none. The key is read when the first
            request is made, and only kept in the header.
        timeout: seconds that connecting, sending, or waiting for the next bytes may take.
        retries: attempts after the first.
        backoff: seconds before the second attempt; doubled each time, and shortened by up to half at random.
        connections: most at a time.
        where: field of the recipe that has the options, for errors.
    """

    def __init__(
        self,
        base_url: str,
        *,
        key_variable: str,
        timeout: float,
        retries: int,
        backoff: float,
        connections: int,
        where: str,
    ) -> None:
        self._base, self._variable = base_url.rstrip("/"), key_variable
        self._retries, self._backoff = retries, backoff
        self._timeout, self._connections, self._where = timeout, connections, where
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None

    def ask(self, path: str, body: Mapping[str, Any], stop: threading.Event) -> Reply:
        """The server's reply to a request.

        Args:
            path: below the base URL.
            body: of the request, JSON-ready.
            stop: set by others when there is no use in another attempt.

        Raises:
            Refused: the server does not take the request as it is.
            ServiceError: it does not answer, refuses the key, has no such model, or its answer cannot be read.
        """
        problem, where = "", f"{self._base}/{path}"
        for attempt in range(self._retries + 1):
            http = self._connected()
            began, asked_to_wait = time.perf_counter(), 0.0
            try:
                response = http.post(where, json=dict(body))
                if response.is_success:
                    return _reply(self._without_key(response.text), time.perf_counter() - began, attempt)
                problem = f"status {response.status_code}: {self._said(response)}"
                asked_to_wait = self._check_status(response, where, str(body["model"]))
            except httpx.TimeoutException as error:
                problem = f"no answer within {self._timeout:g} s ({type(error).__name__})"
            except (httpx.RequestError, httpx.InvalidURL) as error:
                # Neither the error itself nor its cause goes on: either could repeat a header.
                problem = self._without_key(f"{type(error).__name__}: {error}")
            except _UnreadableError as error:
                problem = f"an answer that cannot be read ({error})"
            pause = min(LONGEST_WAIT, self._backoff * 2**attempt) * random.uniform(0.5, 1.0)
            if attempt == self._retries or stop.wait(max(pause, asked_to_wait)):
                break
        attempts = "once" if attempt == 0 else f"{attempt + 1} times"
        raise ServiceError(
            f"the language model was asked {attempts} and did not answer: {problem}",
            where=where,
            fix="look whether the server runs and is not overloaded (options timeout, retries, concurrency), then "
            "start the same command again: it goes on where it stopped",
        ) from None

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._http is None:
                headers = {"Authorization": f"Bearer {self._key()}"} if self._variable else {}
                limits = httpx.Limits(max_connections=self._connections)
                self._http = httpx.Client(headers=headers, timeout=self._timeout, limits=limits)
            return self._http

    def _key(self) -> str:
        key = os.environ.get(self._variable, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            problem = "holds characters that no key has" if key else "is not set"
            raise ServiceError(
                f"the environment variable {self._variable} {problem}",
                where=f"{self._where}, api_key_env",
                fix=f"export {self._variable}=... before the command; the key stands nowhere else",
            )
        return key

    def _check_status(self, response: httpx.Response, where: str, model: str) -> float:
        """Seconds to wait before another attempt, where one can help."""
        code, said = response.status_code, self._said(response)
        if code in (408, 409, 425, 429) or code >= 500:
            wait = _retry_after(response.headers.get("retry-after", ""))
            if wait > LONGEST_RETRY_AFTER:
                raise ServiceError(
                    f"the server asks to wait for {wait:.0f} s (status {code}): {said}",
                    where=where,
                    fix="start the same command again after that: it goes on where it stopped",
                )
            return wait
        if code in (401, 403):
            variable = self._variable or "none, option api_key_env"
            raise ServiceError(
                f"the server refuses the key (status {code}): {said}",
                where=where,
                fix=f"correct the key in the environment variable ({variable})",
            )
        if code == 404:
            raise ServiceError(
                f"the server has no model '{model}', or nothing at this address (status 404): {said}",
                where=where,
                fix="correct 'model', or 'base_url', which ends with /v1 on most servers",
            )
        raise Refused(
            f"the server does not take the request (status {code}): {said}",
            where=where,
            fix="correct the options that it names; 'parameters' changes the request",
        )

    def _said(self, response: httpx.Response) -> str:
        try:
            found = response.json()
            inner = found.get("error", found) if isinstance(found, dict) else found
            text = str(inner.get("message", inner) if isinstance(inner, dict) else inner)
        except ValueError:
            text = response.text
        return self._without_key(" ".join(text.split()))[:SHOWN] or "it says nothing"

    def _without_key(self, text: str) -> str:
        key = os.environ.get(self._variable, "").strip() if self._variable else ""
        return text.replace(key, "***") if key else text


class _UnreadableError(Exception):
    """A successful answer without what it must have."""


def _reply(content: str, seconds: float, retries: int) -> Reply:
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        usage = answer.get("usage") or {}
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        given = choice.get("logprobs") or {}
        return Reply(
            text=text or "",
            tokens=_of_chat(given) if "content" in given else _of_completions(given),
            input_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            seconds=round(seconds, 6),
            retries=retries,
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _UnreadableError(f"{type(error).__name__}: {str(error)[:100]}") from None


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _of_chat(given: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """``logprobs`` of a chat completion: one entry per token, each with ``top_logprobs``."""
    return [
        (
            str(each["token"]),
            {str(other["token"]): float(other["logprob"]) for other in [*(each.get("top_logprobs") or []), each]},
        )
        for each in given["content"] or []
    ]


def _of_completions(given: Mapping[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """``logprobs`` of a completion: parallel lists of tokens, their log probabilities, and those of the likeliest."""
    tokens, logs = given.get("tokens") or [], given.get("token_logprobs") or []
    others = given.get("top_logprobs") or [{} for _ in tokens]
    return [
        (str(token), {**{str(name): float(value) for name, value in (top or {}).items()}, str(token): float(log)})
        for token, log, top in zip(tokens, logs, others, strict=False)
    ]


def _retry_after(value: str) -> float:
    """Seconds of a ``Retry-After`` header: a number, or a date; 0 for none or one that cannot be read."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
