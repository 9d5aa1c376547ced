"""What Hugging Face calls pretrained, from a folder, a hub, or inside an installed package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from stillhouse.errors import DataError, MissingDependencyError, require_package


def require(package: str, what: str) -> None:
    """Refuse to go on without a package of the extra ``text``.

    Raises:
        MissingDependencyError: it is not installed; with the command that installs it.
    """
    require_package(
        package,
        f"{what} needs the package '{package}'",
        where="stillhouse.text",
        fix="pip install 'stillhouse[text]'",
    )


def locate_pretrained(name: str) -> str:
    """What ``from_pretrained`` takes: a folder, a hub id, or ``package:folder`` inside an installed package.

    Raises:
        MissingDependencyError: the package is not installed.
        DataError: the folder is not in the package.
    """
    package, colon, folder = name.partition(":")
    if not colon or Path(name).exists():
        return str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            f"'{name}' is in a package that is not installed",
            where=package,
            fix=f"pip install {package.replace('_', '-')}",
        )
    path = Path(found.submodule_search_locations[0]) / folder
    if not path.is_dir():
        raise DataError(f"package '{package}' has no folder '{folder}'", where=name, fix="correct the folder's name")
    return str(path)


def pretrained(loader: Any, name: str, what: str, **options: Any) -> Any:
    """``loader.from_pretrained`` of a folder, hub id or ``package:folder``; weights are read from safetensors only.

    Args:
        loader: a class of transformers, e.g. ``AutoModel``.
        name: folder, hub id, or ``package:folder``.
        what: what it is, for errors, e.g. ``"tokenizer"``.
        **options: of ``from_pretrained``.

    Raises:
        DataError: nothing of that name can be had.
        MissingDependencyError: see `locate_pretrained`.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    located = locate_pretrained(name)
    logging.disable_progress_bar()  # weights load in a moment, and the bar would tear those of the run
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # weights of heads that are not wanted are no news
    if not any(each in loader.__name__ for each in ("Tokenizer", "Config")):
        options = {"use_safetensors": True, **options}
    try:
        return loader.from_pretrained(located, **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"the {what} '{name}' cannot be loaded: {reason}",
            where=name,
            fix="give a folder with config.json, weights in safetensors and a tokenizer, or a hub id that can be "
            "reached",
        ) from error
    finally:
        logging.set_verbosity(before)
