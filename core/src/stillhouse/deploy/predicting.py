"""A finished run opened: its models, and their predictions of new data."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import torch

from stillhouse.errors import DataError, PluginError, RunFolderError, StillhouseError, UnknownComponentError
from stillhouse.plugins.manager import Manager, default_manager
from stillhouse.plugins.registry import Component, Registry
from stillhouse.plugins.spec import load_target
from stillhouse.plugins.specs import DatasetSpec
from stillhouse.recipe import ResolvedRecipe, resolve
from stillhouse.storage import read_object, refuse_search, replacing
from stillhouse.trained import Trained, component_identity, load
from stillhouse.types import DataInfo, Head


def open_run(folder: Path, manager: Manager | None = None) -> tuple[ResolvedRecipe, DataInfo, Head, Registry]:
    """The recipe, data info and head of a run folder.

    Raises:
        RunFolderError: not a run, or one that has not got far enough.
    """
    recipe = folder / "recipe.yaml"
    refuse_search(folder)
    if not recipe.exists():
        raise RunFolderError(
            f"'{folder}' is not a run folder: it has no recipe.yaml",
            where=str(folder),
            fix="give the folder that `stillhouse run` printed, e.g. runs/rul-fd001",
        )
    registry = (manager or default_manager()).registry
    try:
        resolved = resolve(recipe, registry)
    except UnknownComponentError as error:
        if options := _plugin_options(folder):
            error.fix = f"give {options}, as the run was given"
        raise
    made_by = read_object(folder / "data" / "done.json")["inputs"]
    _warn_of_changes(made_by.get("dataset", {}), resolved.dataset.component, folder)
    info = DataInfo.from_json(read_object(folder / "data" / "info.json"))
    head: Head = resolved.head.component.load()(info, **resolved.head.options)
    return resolved, info, head, registry


def open_model(
    folder: Path, *, model: str, seed: int | None, info: DataInfo, registry: Registry
) -> tuple[Trained, Path]:
    """A trained model of a run: the ``student`` (or ``baseline``) of a seed, by default the seed with the best
    validation metric.

    Raises:
        RunFolderError: there is no such model.
    """
    found = sorted((folder / model).glob("seed-*/done.json"))
    if not found:
        raise RunFolderError(
            f"'{folder}' has no finished {model}",
            where=str(folder / model),
            fix="finish the run: start it again with the same command",
        )
    if seed is None:
        path = _best(folder, model, [each.parent for each in found])
    else:
        path = folder / model / f"seed-{seed}"
        if not (path / "done.json").exists():
            seeds = ", ".join(each.parent.name.removeprefix("seed-") for each in found)
            raise RunFolderError(
                f"the run has no {model} of seed {seed}",
                where=str(folder / model),
                fix=f"seeds of this run: {seeds}",
            )
    trained, made_by = load(path, registry, info), read_object(path / "done.json")["inputs"]
    _warn_of_changes(made_by.get("model", {}), trained.component, folder)
    return trained, path


def _plugin_options(folder: Path) -> str:
    """``--plugin FILE``, as often as the run was given it; empty without any."""
    manifest = folder / "manifest.json"
    command = read_object(manifest).get("command", []) if manifest.exists() else []
    files = [given for option, given in pairwise(command) if option == "--plugin"]
    files += [given.partition("=")[2] for given in command if given.startswith("--plugin=")]
    return " ".join(f"--plugin {each}" for each in files)


def _warn_of_changes(made_by: Mapping[str, Any], component: Component, folder: Path) -> None:
    """Warn where a component's code is not that which made a piece of the run, by what was recorded of it."""
    recorded = made_by.get("source")
    if recorded is not None and recorded != component_identity(component).get("source", recorded):
        warnings.warn(
            f"the code of '{component.id}' has changed since '{folder}' was made: predictions may be others than those "
            "of the run; run it again, or bring back the code",
            stacklevel=3,
        )


def _best(folder: Path, model: str, paths: list[Path]) -> Path:
    """The seed whose chosen epoch was best on validation; test rows choose nothing."""
    summary = read_object(folder / "summary.json")
    name, higher = summary["primary_metric"]["name"], summary["primary_metric"]["higher_is_better"]
    scores: dict[Path, float] = {}
    for path in paths:
        history = [json.loads(line) for line in (path / "history.jsonl").read_text(encoding="utf-8").splitlines()]
        if history:
            values = [record["val"][name] for record in history]
            scores[path] = max(values) if higher else -min(values)
    return max(scores, key=lambda path: scores[path]) if scores else paths[0]


def predict(
    run: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    seed: int | None = None,
    manager: Manager | None = None,
) -> dict[str, list[Any]]:
    """Predictions of a run's student for a file of the user's.

    Args:
        run: the run folder.
        data: a file in the form that the run's dataset reads.
        out: CSV file to write; none when it is None.
        seed: which student; by default the best on validation.
        manager: plugins to use, the installed ones by default.

    Returns:
        columns: what identifies each row, then the decoded prediction.

    Raises:
        RunFolderError: the run is not finished.
        DataError: the file cannot be used, or the dataset has no reader for new files.
    """
    folder, path = Path(run), Path(data)
    resolved, info, head, registry = open_run(folder, manager)
    spec = resolved.dataset.component.spec
    assert isinstance(spec, DatasetSpec)
    if not spec.reader:
        raise DataError(
            f"dataset '{resolved.dataset.id}' does not read new files",
            where=str(path),
            fix="ask the plugin's author for a reader, or call the student from Python",
        )
    if not path.exists():
        raise DataError(f"'{path}' does not exist", where=str(path), fix="check the path")
    trained, _ = open_model(folder, model="student", seed=seed, info=info, registry=registry)
    reader = load_target(spec.reader, who=resolved.dataset.id).from_state(read_object(folder / "data" / "reader.json"))
    try:
        rows, identity = reader.read(path)
    except StillhouseError:
        raise
    except Exception as error:  # whatever a plugin's reader did not foresee
        raise PluginError(
            f"the reader of dataset '{resolved.dataset.id}' failed: {type(error).__name__}: {error}",
            where=str(path),
            fix=f"check the file; when it is right, tell the author of '{spec.reader}' that bad files need a DataError",
        ) from error
    missing = [name for name in trained.inputs if name not in rows.row(0)]
    if missing:
        raise DataError(
            f"the rows that were read lack the input '{missing[0]}' of the student",
            where=str(path),
            fix="see the warnings of the reader",
        )
    prediction = trained.predict(rows, torch.device("cpu"), head)
    bad = ~prediction.flatten(1).isfinite().all(dim=1)
    if bad.any():
        at = int(bad.nonzero()[0])
        row = ", ".join(f"{name} {values[at]}" for name, values in identity.items())
        raise DataError(
            f"the prediction of {row} is not a number ({int(bad.sum())} such rows)",
            where=str(path),
            fix="look for empty or huge values in that row",
        )
    columns = {**identity, **head.decode(prediction)}
    if out is not None:
        with replacing(Path(out)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            write_csv(file, columns)
    return columns


def write_csv(file: TextIO, columns: Mapping[str, list[Any]]) -> None:
    """Write columns of predictions as CSV; numbers have seven significant digits, which is what float32 holds."""
    import csv

    writer = csv.writer(file)
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([f"{value:.7g}" if isinstance(value, float) else value for value in row])


def write_columns(file: TextIO, columns: Mapping[str, list[Any]], *, lines: bool) -> None:
    """Write columns of predictions as CSV, or as JSON Lines with the same digits."""
    if not lines:
        write_csv(file, columns)
        return
    for row in zip(*columns.values(), strict=True):
        values = (float(f"{value:.7g}") if isinstance(value, float) else value for value in row)
        file.write(json.dumps(dict(zip(columns, values, strict=True)), ensure_ascii=False) + "\n")


@contextlib.contextmanager
def read_stdin() -> Iterator[Path]:
    """What stands on stdin as a file, which is gone afterwards: JSON Lines where it begins with a brace, else CSV.
    Errors raised meanwhile call it "stdin".

    Raises:
        DataError: there is nothing, or a JSON array.
    """
    given = sys.stdin.buffer.read()
    if not given.strip():
        raise DataError(
            "there is nothing on stdin", where="stdin", fix="pipe a CSV file or JSON Lines into the command"
        )
    if given.lstrip().startswith(b"["):
        raise DataError(
            "there is a JSON array on stdin", where="stdin", fix="write one object a line, e.g. with: jq -c '.[]'"
        )
    suffix = ".jsonl" if given.lstrip().startswith(b"{") else ".csv"
    with tempfile.TemporaryDirectory(prefix="stillhouse-stdin-") as folder:
        path = Path(folder) / f"stdin{suffix}"
        path.write_bytes(given)
        try:
            yield path
        except StillhouseError as error:
            error.what, error.where, error.fix = (
                text.replace(str(path), "stdin") for text in (error.what, error.where, error.fix)
            )
            raise
