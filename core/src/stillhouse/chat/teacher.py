"""``core/chat``: a language model behind HTTP as a teacher that is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from stillhouse.chat.answers import PARSED, UNPARSED, Reply, read_reply, usage
from stillhouse.chat.prompts import TEMPLATE, Prompts
from stillhouse.chat.service import Address, Api, AtLeastOne, Budget, Request, Seconds, Service, Variable
from stillhouse.errors import OptionError
from stillhouse.kinds import OutputKind
from stillhouse.storage import digest
from stillhouse.types import Batch, Outputs, Reader, Split, Task

READING = 1
"""Version of how replies become predictions; part of the revision."""

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
        api: Api = "chat",
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
        timeout: Seconds = 60.0,
        retries: Annotated[int, Field(ge=0)] = 5,
        backoff: Annotated[float, Field(ge=0)] = 0.5,
        max_requests: Budget = None,
        max_tokens: Budget = None,
        price_per_million_input: Price = None,
        price_per_million_output: Price = None,
    ) -> None:
        self._task, self._answers = task, _answers(task, answers)
        self._model, self._api, self._reply_tokens = model, api, reply_tokens
        self._logprobs = min(logprobs, 5) if api == "completions" else logprobs
        self._shots, self._confidence = shots, confidence
        self._prices = (price_per_million_input, price_per_million_output)
        self._prompts = Prompts(prompt, info=task.info, answers=self._answers, columns=columns)
        self._service = Service(
            where="teacher",
            base_url=base_url,
            model=model,
            api_key_env=api_key_env,
            api=api,
            system=system,
            parameters=parameters,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            max_requests=max_requests,
            max_tokens=max_tokens,
        )
        asked = [
            READING,
            self._service.base_url,
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
        replies = self._service.replies(self._name, batch["index"].tolist(), requests, lambda each: self._read(each)[1])
        logs = torch.tensor([self._read(each)[0] for each in replies], dtype=torch.float64).log()
        if self._task.kind is OutputKind.BINARY:
            logs = logs[:, 1:] - logs[:, :1]
        return Outputs(logs.float().to(batch["index"].device))

    def _read(self, reply: Reply) -> tuple[list[float], str]:
        return read_reply(reply, self._answers, confidence=self._confidence)

    def _request(self, prompt: str) -> Request:
        fields: dict[str, Any] = {"max_tokens": self._reply_tokens, "temperature": 0}
        if self._logprobs:
            chat = {"logprobs": True, "top_logprobs": self._logprobs}
            fields |= chat if self._api == "chat" else {"logprobs": self._logprobs}
        return self._service.request(prompt, **fields)

    def facts(self) -> dict[str, Any]:
        """See `stillhouse.teachers.AskedTeacher`: what was asked for these training rows, over all starts and runs that
        share the replies. ``seconds`` is the sum over requests of the time to the answer, as measured while others were
        on their way; ``price`` and the tokens are None where they are not known."""
        readings, used = self._service.store.readings(self._name), usage(self._service.store.replies_of(self._name))
        counts, requests, rows = (used["input_tokens"], used["output_tokens"]), used["requests"], readings["rows"]
        price = None
        if None not in counts and None not in self._prices:
            price = sum((count or 0) * (each or 0) / 1e6 for count, each in zip(counts, self._prices, strict=True))
        return {
            "rows": rows,
            **used,
            "ms_per_row": round(1000 * used["seconds"] / requests, 3) if requests else None,
            "price": price,
            "price_per_row": price / rows if price is not None and rows else None,
            **{name: readings[name] for name in ("probabilities", PARSED, UNPARSED)},
        }

    def remarks(self) -> list[str]:
        """See `stillhouse.teachers.AskedTeacher`."""
        readings, found = self._service.store.readings(self._name), []
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
