"""Replies of language models, kept as soon as they are there: a request is paid for once, whichever run needs it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from stillhouse.chat.answers import PARSED, PROBABILITIES, UNPARSED, Reply
from stillhouse.errors import RunFolderError

TABLES = """
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS uses (
    teacher TEXT, row INTEGER, key TEXT, reading TEXT NOT NULL, PRIMARY KEY (teacher, row, key)
) WITHOUT ROWID;
"""


class Store:
    """One SQLite file that threads and processes share. Each reply is a transaction: a process that is killed loses
    only what was on its way.

    Args:
        path: the file; it and its folder are made with the first reply or look-up.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each use: opening one costs little beside a request."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=60)) as connection:
                connection.executescript(TABLES)
                with connection:  # commits, or rolls back
                    yield connection
        except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
            raise RunFolderError(
                f"the replies of language models cannot be kept or read: {type(error).__name__}: {error}",
                where=str(self._path),
                fix="make room, or set STILLHOUSE_CACHE to a folder that you may write to; if the file is damaged, "
                "remove it, and all is asked again",
            ) from error

    def get(self, keys: Sequence[str]) -> dict[str, Reply]:
        """Those replies that are there, by key."""
        found = {}
        with self._connection() as connection:
            for key in dict.fromkeys(keys):
                row = connection.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    found[key] = Reply.from_json(json.loads(row[0]))
        return found

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply."""
        with self._connection() as connection:
            text = json.dumps(reply.to_json(), ensure_ascii=False)
            connection.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, text))

    def used(self, teacher: str, uses: Sequence[tuple[int, str, str]]) -> None:
        """Note that a teacher answered rows from replies.

        Args:
            teacher: any name of it.
            uses: row id, key of the reply and how it was read.
        """
        with self._connection() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?)", [(teacher, *each) for each in uses]
            )

    def replies_of(self, teacher: str) -> list[Reply]:
        """Every reply that a teacher has used, once."""
        with self._connection() as connection:
            found = connection.execute(
                "SELECT reply FROM replies WHERE key IN (SELECT key FROM uses WHERE teacher = ?)", (teacher,)
            ).fetchall()
        return [Reply.from_json(json.loads(text)) for (text,) in found]

    def readings(self, teacher: str) -> Mapping[str, Any]:
        """How many rows a teacher answered, and in which way: ``rows``, ``probabilities``, ``parsed``, ``unparsed``,
        and the ids of the first five rows that could not be parsed, ``first``."""
        with self._connection() as connection:
            counted = dict(
                connection.execute(
                    "SELECT reading, COUNT(DISTINCT row) FROM uses WHERE teacher = ? GROUP BY reading", (teacher,)
                ).fetchall()
            )
            rows = connection.execute("SELECT COUNT(DISTINCT row) FROM uses WHERE teacher = ?", (teacher,)).fetchone()
            first = connection.execute(
                "SELECT DISTINCT row FROM uses WHERE teacher = ? AND reading = ? ORDER BY row LIMIT 5",
                (teacher, UNPARSED),
            ).fetchall()
        ways = {way: counted.get(way, 0) for way in (PROBABILITIES, PARSED, UNPARSED)}
        return {"rows": rows[0], **ways, "first": [row for (row,) in first]}
