"""From a reply to probabilities of the classes: from the log probabilities of its tokens, else from its words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

EPSILON = 1e-6
"""Probabilities of classes are kept this far from 0: that of a class outside the likeliest tokens is not known."""
LEAST_MASS = 0.01
"""Share of the probability that the replies wanted must have together, for their ratio to say anything."""
PROBABILITIES, PARSED, UNPARSED = "probabilities", "parsed", "unparsed"
"""How an answer was read."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a server said to one prompt.

    Attributes:
        text: the reply.
        tokens: for each token that was written, the token, and log probabilities of it and of others by token; empty
            where the server gives none.
        input_tokens: length of the prompt, as the server counts; None where it does not tell.
        output_tokens: length of the reply.
        seconds: from sending the request that was answered to its answer.
        retries: requests before it that failed.
    """

    text: str
    tokens: Sequence[tuple[str, Mapping[str, float]]] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float = 0.0
    retries: int = 0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_json`, also after a trip through JSON."""
        tokens = [(token, dict(others)) for token, others in values["tokens"]]
        return cls(**{**values, "tokens": tokens})


def usage(replies: Sequence[Reply]) -> dict[str, Any]:
    """What replies took together: ``requests``, ``retries``, ``input_tokens`` and ``output_tokens`` (None where the
    server does not count), and ``seconds``, the sum of the times to each answer while others were on their way."""
    counts = [[each.input_tokens for each in replies], [each.output_tokens for each in replies]]
    read, written = (None if None in each else sum(count or 0 for count in each) for each in counts)
    return {
        "requests": len(replies),
        "retries": sum(each.retries for each in replies),
        "input_tokens": read,
        "output_tokens": written,
        "seconds": round(sum(each.seconds for each in replies), 3),
    }


def read_reply(reply: Reply, answers: Sequence[str], *, confidence: float) -> tuple[list[float], str]:
    """Probabilities of the answers (they sum to 1), and how they were found.

    Args:
        reply: of the server.
        answers: the reply wanted for each class.
        confidence: probability of a class that the reply names, where no log probabilities tell it.
    """
    masses = label_masses(reply.tokens, answers)
    if sum(masses) >= LEAST_MASS:
        kept = [max(mass / sum(masses), EPSILON) for mass in masses]
        return [each / sum(kept) for each in kept], PROBABILITIES
    named = named_answer(reply.text, answers)
    if named is None:
        return [1 / len(answers)] * len(answers), UNPARSED
    others = (1 - confidence) / (len(answers) - 1)
    return [confidence if at == named else others for at in range(len(answers))], PARSED


def label_masses(tokens: Sequence[tuple[str, Mapping[str, float]]], answers: Sequence[str]) -> list[float]:
    """Probability that the reply is each of the answers, as far as the tokens tell.

    Along the tokens that were written, each alternative that leaves one answer only adds its probability, times that of
    the tokens before it, to that answer. Alternatives that leave several answers, and were not written, are left out.
    """
    masses = [0.0] * len(answers)
    prefix, log = "", 0.0
    for written, alternatives in tokens:
        for token, value in alternatives.items():
            fits = _fitting(prefix + token, answers)
            if len(fits) == 1:
                masses[fits[0]] += math.exp(min(log + value, 0.0))
        fits = _fitting(prefix + written, answers)
        if len(fits) < 2 or written not in alternatives:
            return masses
        prefix, log = prefix + written, log + alternatives[written]
    wanted = [at for at, answer in enumerate(answers) if _plain(answer) == _plain(prefix).rstrip()]
    if prefix and len(wanted) == 1:  # it ended where a longer answer could have gone on
        masses[wanted[0]] += math.exp(min(log, 0.0))
    return masses


def _fitting(text: str, answers: Sequence[str]) -> list[int]:
    """Answers that a reply which begins with ``text`` can still be."""
    begun = _plain(text)
    return [at for at, answer in enumerate(answers) if _fits(begun, _plain(answer))]


def _fits(begun: str, answer: str) -> bool:
    if answer.startswith(begun):
        return True
    rest = begun[len(answer) :]
    return begun.startswith(answer) and not (rest[0].isalnum() or rest[0] in "_-")


def _plain(text: str) -> str:
    return text.lstrip(" \t\r\n\"'`*([▁Ġ").casefold()


def named_answer(text: str, answers: Sequence[str]) -> int | None:
    """Position of the answer that the reply names: its first line, or the only one that stands in it as words."""
    known = {answer.casefold(): at for at, answer in enumerate(answers)}
    lines = text.strip().splitlines()
    first = (lines[0] if lines else "").strip(" \t\"'`*()[].,:;!").casefold()
    if first in known:
        return known[first]
    longest = sorted(known, key=len, reverse=True)
    pattern = rf"(?<!\w)(?:{'|'.join(re.escape(each) for each in longest)})(?!\w)"
    found = set(re.findall(pattern, text.casefold()))
    return known[found.pop()] if len(found) == 1 else None
