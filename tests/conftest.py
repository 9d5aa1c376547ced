"""What all tests share: no network, no store of teachers from earlier runs, few threads, the data folder when there is
one."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A busy machine is no defect.
settings.register_profile("stillhouse", deadline=None)
settings.load_profile("stillhouse")


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a store of its own and cannot reach beyond this machine."""
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("STILLHOUSE_PLUGINS", "STILLHOUSE_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    genuine = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise OSError(f"a test tried to reach {address}")
        genuine(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def data_folder() -> Path:
    """The folder of official files; the test is skipped where there is none."""
    given = os.environ.get("STILLHOUSE_DATA")
    if not given or not Path(given).is_dir():
        pytest.skip("STILLHOUSE_DATA does not name a folder of official files")
    return Path(given)
