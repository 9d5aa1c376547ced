"""What carries messages to clients and back: here, one client after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from stillhouse.methods.federated.client import Client
from stillhouse.methods.federated.messages import Message

Reply = Message | str
"""What came back from a client, or in a few words why nothing did."""


class Engine(Protocol):
    """Carries messages."""

    def exchange(self, requests: Mapping[str, Message]) -> dict[str, Reply]:
        """Ask some clients, by name, and wait for what they answer."""


def late(deadline: float) -> str:
    """What is said of a client that did not answer in time."""
    return f"no answer within {deadline:g} s"


class Local:
    """Clients in this process, one after the other. One that takes longer than the deadline is waited for, and then
    left out.

    Args:
        clients: by name.
        deadline: seconds for an answer; None waits for ever.
    """

    def __init__(self, clients: Mapping[str, Client], deadline: float | None) -> None:
        self._clients, self._deadline = clients, deadline

    def exchange(self, requests: Mapping[str, Message]) -> dict[str, Reply]:
        """See `Engine`."""
        replies: dict[str, Reply] = {}
        for name, request in requests.items():
            began = time.monotonic()
            try:
                replies[name] = self._clients[name].answer(request)
            except Exception as error:  # whatever happens to one client is no reason to stop the others
                replies[name] = described(error)
            if self._deadline is not None and time.monotonic() - began > self._deadline:
                replies[name] = late(self._deadline)
        return replies


def described(error: Exception) -> str:
    """An exception on one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
