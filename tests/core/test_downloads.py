"""Downloads against a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stillhouse.data.downloads import fetch
from stillhouse.errors import DataError

CONTENT = b"unit,time,signal\n1,0,0.5\n"
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    published = tmp_path / "published"
    published.mkdir()
    (published / "rows.csv").write_bytes(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(published)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/rows.csv"
    server.shutdown()
    server.server_close()


def test_a_missing_file_is_fetched_once(url: str, tmp_path: Path) -> None:
    path = tmp_path / "data" / "rows.csv"
    assert fetch(path, url=url, checksum=CHECKSUM, licence="CC0", allowed=True) == path
    assert path.read_bytes() == CONTENT
    path.write_bytes(b"changed by its owner")
    fetch(path, url=url, checksum=CHECKSUM, licence="CC0", allowed=True)
    assert path.read_bytes() == b"changed by its owner"


def test_another_content_is_refused_and_leaves_nothing(url: str, tmp_path: Path) -> None:
    path = tmp_path / "data" / "rows.csv"
    with pytest.raises(DataError, match="download failed") as caught:
        fetch(path, url=url, checksum=f"sha256:{'0' * 64}", licence="CC0", allowed=True)
    assert url in str(caught.value)
    assert str(path) in str(caught.value)
    assert list(path.parent.iterdir()) == []


def test_no_connection_says_what_to_put_where(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(DataError, match="download failed") as caught:
        fetch(path, url="http://127.0.0.1:9/rows.csv", checksum=CHECKSUM, licence="CC BY 4.0", allowed=True)
    assert "http://127.0.0.1:9/rows.csv and put it there (CC BY 4.0)" in str(caught.value)


def test_what_is_not_allowed_is_not_downloaded(url: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing may be downloaded"):
        fetch(tmp_path / "rows.csv", url=url, checksum=CHECKSUM, licence="CC0", allowed=False)
    assert not (tmp_path / "rows.csv").exists()
