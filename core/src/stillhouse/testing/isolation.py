"""No network, no store of earlier teachers: what a check or a tiny run must not depend on."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Unreachable(OSError):
    """Something tried to reach another machine while the network was switched off."""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Refuse connections to, and look-ups of, anything but this machine."""
    genuine = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}
    look_up = socket.getaddrinfo

    def refuse(host: Any) -> None:
        if isinstance(host, str | bytes) and not _is_here(host if isinstance(host, str) else host.decode()):
            raise Unreachable(f"tried to reach {host!r}, and must work offline")

    def guarded(name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(address[0])
            return genuine[name](self, address)

        return connect

    def guarded_look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(host)
        return look_up(host, *args, **kwargs)

    try:
        for name in genuine:
            setattr(socket.socket, name, guarded(name))
        socket.getaddrinfo = guarded_look_up
        yield
    finally:
        for name, method in genuine.items():
            setattr(socket.socket, name, method)
        socket.getaddrinfo = look_up


def _is_here(host: str) -> bool:
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def private_store() -> Iterator[Path]:
    """A folder that is gone afterwards; teachers are neither taken from the user's store nor kept in it."""
    before = os.environ.get("STILLHOUSE_CACHE")
    with tempfile.TemporaryDirectory(prefix="stillhouse-", ignore_cleanup_errors=True) as folder:
        os.environ["STILLHOUSE_CACHE"] = f"{folder}/store"
        try:
            yield Path(folder)
        finally:
            if before is None:
                del os.environ["STILLHOUSE_CACHE"]
            else:
                os.environ["STILLHOUSE_CACHE"] = before
