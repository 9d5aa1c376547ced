"""Texts that a language model writes and only the teacher labels: training texts in other words, and texts of classes
that have few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from stillhouse.chat.answers import Reply, usage
from stillhouse.chat.prompts import Template
from stillhouse.chat.service import Address, AtLeastOne, Budget, Seconds, Service, Variable
from stillhouse.errors import DataError, IncompatibleError
from stillhouse.storage import digest
from stillhouse.types import Batch, DataInfo, Reader, Split

REWRITE = """\
Write this text again in other words. Keep what it means, and reply with the new text alone.

{{ row.text }}"""
WRITE = """\
Write one new text of the kind "{{ name }}". These are examples:

{% for example in examples %}- {{ example.text }}
{% endfor %}
Reply with the new text alone."""
PROMPTS = {"rewrite": REWRITE, "classes": WRITE}
"""The default prompts."""
WRITTEN, EMPTY = "written", "empty"
"""How a reply was read."""


@runtime_checkable
class TextRows(Protocol):
    """A reader of texts, which makes rows of new ones: `stillhouse.text.TextReader`."""

    def describe(self, batch: Batch) -> Sequence[dict[str, Any]]:
        """``text`` of each row."""
        ...

    def rows_of(self, texts: Sequence[str]) -> Split:
        """The texts as rows."""
        ...


class ChatTexts:
    """Texts written by a language model behind HTTP; a `stillhouse.types.AskedAugmenter`.

    ``rewrite`` takes every training text equally often and asks for other words. ``classes`` asks for a new text after
    examples of a class, each time of the class that has the fewest texts so far, training texts and those asked for
    together, so that classes become as large as each other. The teacher labels what is written, whatever was asked for.

    Source: Dai et al., "AugGPT: Leveraging ChatGPT for Text Data Augmentation" (2023), for ``rewrite``; there a new
    text has the label of the one that it was made from.

    Args:
        base_url: address of an OpenAI-compatible server, up to and with ``/v1``; without user, password and query.
        model: name of the model, as the server has it.
        api_key_env: name of the environment variable that holds the key; empty for servers without one.
        write: what is asked for.
        prompt: Jinja template over ``row.text`` (rewrite), or ``name``, the class, and ``examples``, training texts of
            it, each ``example.text`` (classes); by default one that is printed in the documentation.
        shots: examples of each prompt, drawn for each anew.
        names: the classes in words, in their order; their names by default.
        reply_tokens: longest reply.
        temperature: of the model's sampling.
        parameters: further fields of the request; one that is null leaves the field out.
        concurrency: requests at a time.
        timeout: seconds without an answer after which a request has failed.
        retries: attempts after one that failed, for errors that may pass.
        backoff: seconds before the second attempt, doubled for each further one.
        max_requests: budget of requests that were answered, over all starts of the run; none by default.
        max_tokens: budget of tokens, prompts and replies together; none by default.

    Raises:
        OptionError: the template is not Jinja.
    """

    def __init__(
        self,
        *,
        base_url: Address,
        model: Annotated[str, Field(min_length=1)],
        api_key_env: Variable = "",
        write: Literal["rewrite", "classes"] = "rewrite",
        prompt: str = "",
        shots: AtLeastOne = 3,
        names: list[str] = [],  # noqa: B006  never changed
        reply_tokens: AtLeastOne = 96,
        temperature: Annotated[float, Field(ge=0)] = 1.0,
        parameters: dict[str, Any] = {},  # noqa: B006
        concurrency: AtLeastOne = 4,
        timeout: Seconds = 60.0,
        retries: Annotated[int, Field(ge=0)] = 5,
        backoff: Annotated[float, Field(ge=0)] = 0.5,
        max_requests: Budget = None,
        max_tokens: Budget = None,
    ) -> None:
        self._service = Service(
            where="extra_rows",
            base_url=base_url,
            model=model,
            api_key_env=api_key_env,
            parameters=parameters,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            backoff=backoff,
            max_requests=max_requests,
            max_tokens=max_tokens,
        )
        self._write, self._shots, self._names = write, shots, list(names)
        self._template = Template(prompt or PROMPTS[write])
        self._fields = {"max_tokens": reply_tokens, "temperature": temperature}
        self._user = ""
        self._reader: TextRows | None = None

    def prepare(self, reader: Reader | None) -> None:
        """See `stillhouse.types.AskedAugmenter`.

        Raises:
            IncompatibleError: the dataset's reader knows no texts.
        """
        if not isinstance(reader, TextRows):
            raise IncompatibleError(
                "a language model writes texts, and the rows of the dataset are none",
                where="extra_rows",
                fix="choose a dataset of texts, made by stillhouse.text.text_splits, or another augmenter",
            )
        self._reader = reader

    def __call__(self, train: Split, info: DataInfo, count: int, seed: int) -> Split:
        """See `stillhouse.types.Augmenter`; empty replies make no rows, so that fewer than ``count`` may come.

        Raises:
            ServiceError: the server does not answer, or the budget is spent. What it wrote before is kept.
            DataError: it wrote nothing at all.
        """
        assert self._reader is not None, "prepare comes first"
        texts = [each["text"] for each in self._reader.describe(train.batch(range(len(train))))]
        asking = self._rewrites if self._write == "rewrite" else self._new_ones
        prompts = asking(texts, train, info, count, np.random.default_rng(seed))
        # The server's own seed makes each request another one, and the same one in the next run.
        requests = [self._service.request(each, **self._fields, seed=seed + at) for at, each in enumerate(prompts)]
        self._user = digest([self._service.base_url, requests])
        replies = self._service.replies(self._user, range(count), requests, _reading)
        written = [text for text in map(text_of, replies) if text]
        if not written:
            raise DataError(
                f"all {count} replies of the language model are empty",
                where="extra_rows",
                fix="look at the prompt, or raise reply_tokens",
            )
        return self._reader.rows_of(written)

    def _rewrites(
        self, texts: Sequence[str], train: Split, info: DataInfo, count: int, random: np.random.Generator
    ) -> list[str]:
        rounds = -(-count // len(texts))
        order = np.concatenate([random.permutation(len(texts)) for _ in range(rounds)])[:count]
        return [self._template.render(f"training row {at}", row={"text": texts[at]}) for at in order]

    def _new_ones(
        self, texts: Sequence[str], train: Split, info: DataInfo, count: int, random: np.random.Generator
    ) -> list[str]:
        names = self._names or list(info.classes or ())
        if len(names) != len(info.classes or ()):
            raise IncompatibleError(
                f"'names' has {len(names)} classes in words, the dataset has {len(info.classes or ())}",
                where="extra_rows, names",
                fix="give one for each class, in their order",
            )
        target = train.columns(["target"])["target"].numpy().reshape(-1)
        positions = [np.flatnonzero(target == label) for label in range(len(names))]
        sizes, prompts = [len(each) for each in positions], []
        for _ in range(count):
            label = int(np.argmin(sizes))
            sizes[label] += 1
            drawn = random.choice(positions[label], min(self._shots, len(positions[label])), replace=False)
            examples = [{"text": texts[at]} for at in drawn]
            prompts.append(self._template.render(f"class '{names[label]}'", name=names[label], examples=examples))
        return prompts

    def facts(self) -> dict[str, Any]:
        """See `stillhouse.types.AskedAugmenter`."""
        return usage(self._service.store.replies_of(self._user))


def text_of(reply: Reply) -> str:
    """The text that a reply brings: its first paragraph on one line, without quotation marks around it."""
    paragraph = reply.text.strip().partition("\n\n")[0]
    text = " ".join(paragraph.split())
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _reading(reply: Reply) -> str:
    return WRITTEN if text_of(reply) else EMPTY
