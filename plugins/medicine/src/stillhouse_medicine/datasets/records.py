"""Rows of JSON and CSV files about images, each with a place to name in an error."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stillhouse.errors import DataError, nearest


def read_records(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON array of objects, or of a CSV file with a header.

    Raises:
        DataError: the file is missing, cannot be parsed (with the line), is empty, or a row is no object.
    """
    if not os.path.isfile(path):
        raise DataError("the file does not exist", where=str(path), fix="correct the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"the file is not UTF-8: {error}", where=str(path), fix="save it as UTF-8") from error
    if path.suffix.lower() == ".csv":
        rows: Any = _csv_rows(path, text)
    else:
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"the file is not JSON: {error.msg}",
                where=f"{path}, line {error.lineno}",
                fix="get the file again; it is truncated or corrupt",
            ) from error
    if not isinstance(rows, list) or not rows:
        raise DataError("the file has no rows", where=str(path), fix="a JSON array of objects, or CSV with a header")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(f"row {number} is {type(row).__name__}, not an object", where=str(path))
    return rows


def _csv_rows(path: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"line {reader.line_num} has another number of fields than the header",
                    where=str(path),
                    fix="quote fields that hold commas; a truncated file must be got again",
                )
            rows.append(dict(row))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} cannot be read: {error}", where=str(path)) from error
    return rows


def require_column(rows: list[dict[str, Any]], name: str, path: Path) -> None:
    """Refuse a file without a column.

    Raises:
        DataError: with the nearest name there is.
    """
    if name not in rows[0]:
        raise DataError(f"there is no column '{name}'", where=str(path), fix=nearest(name, rows[0]))


def text_of(row: Mapping[str, Any], name: str, place: str) -> str:
    """The text (or number, as text) in a field.

    Raises:
        DataError: it is missing or blank.
    """
    value = row.get(name)
    if value is None or isinstance(value, dict | list) or not str(value).strip():
        raise DataError(f"'{name}' is missing or blank", where=place, fix="fill it in, or remove the row")
    return str(value).strip()
