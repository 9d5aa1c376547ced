"""Files of a run folder: written atomically, read without unpickling anything."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import RunFolderError

if TYPE_CHECKING:  # commands that only look at files need no torch
    from torch import Tensor, nn

TEMPORARY = "partial-"
"""How names of unfinished files and folders begin, after the dot."""
SUMMARY = "summary.json"
"""Name of the file with a finished run's results."""
SEARCH = "tune.json"
"""Name of the file with what a finished search found."""
PLAN = "plan.json"
"""Name of the file that says what a table's cached columns were made from, beside them."""
RULES = "rules.txt"
"""What explains a model that a person can read, beside its weights."""


def refuse_search(folder: Path, fix: str = "give its final run: {final}") -> None:
    """A run is wanted, and the folder holds a search.

    Raises:
        RunFolderError: it does.
    """
    if (folder / SEARCH).exists():
        raise RunFolderError(
            f"'{folder}' is a search, not a run", where=str(folder), fix=fix.format(final=folder / "final")
        )


def cache_folder() -> Path:
    """What runs share is kept there: ``$STILLHOUSE_CACHE``, else the platform's user cache folder."""
    import platformdirs

    given = os.environ.get("STILLHOUSE_CACHE")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("stillhouse"))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{TEMPORARY}{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{TEMPORARY}{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left behind in ``folder``, in which nobody else may be writing."""
    for path in sorted(folder.rglob(f".{TEMPORARY}*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused, since other readers refuse it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        RunFolderError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(
            f"'{path}' is missing",
            where=str(path.parent),
            fix="finish the run: start it again with the same command",
        ) from error
    except ValueError as error:
        raise RunFolderError(
            f"'{path}' is not JSON: {error}", where=str(path), fix="remove it and start the run again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Read JSON that is an object, such as a summary.

    Raises:
        RunFolderError: the file is missing, not JSON, or something else than an object.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunFolderError(f"'{path}' is not a JSON object", where=str(path), fix="remove it and start the run again")
    return found


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, str(temporary))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors.

    Raises:
        RunFolderError: the file is missing or corrupt.
    """
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except Exception as error:  # safetensors raises its own error type and OSError alike
        raise RunFolderError(
            f"cannot read '{path}': {error}", where=str(path), fix="remove it and start the run again"
        ) from error


def write_weights(path: Path, model: nn.Module) -> None:
    """Write a module's state; tensors that share memory are written once each."""
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_tensors(path, state)


def read_weights(path: Path, model: nn.Module) -> None:
    """Load a module's state written by `write_weights`.

    Raises:
        RunFolderError: missing, corrupt, or of another architecture.
    """
    try:
        model.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise RunFolderError(
            f"the weights do not fit the model: {error}",
            where=str(path),
            fix="use the recipe and plugin version that made them",
        ) from error


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write optimiser and model state (tensors and plain values only), atomically."""
    import torch

    with replacing(path) as temporary:
        torch.save(dict(state), temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote; nothing but tensors and plain values is accepted.

    Raises:
        RunFolderError: corrupt.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors
        raise RunFolderError(
            f"cannot read the checkpoint: {error}",
            where=str(path),
            fix="remove it; training restarts at epoch 0",
        ) from error
    return state


def digest(value: Any) -> str:
    """Short stable hash of JSON-ready values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def state_digest(model: nn.Module) -> str:
    """Hash of all parameters and buffers, to prove that a frozen model was not changed."""
    import torch

    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
