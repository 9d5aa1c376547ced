"""How long a command makes its user wait, in starts of the bare interpreter."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.timing import Comparison, compare


def compare_start() -> Iterator[Comparison]:
    """``stillhouse --help``, ``plugins list`` and ``components``, each in a fresh process."""
    for arguments in (["--help"], ["plugins", "list"], ["components"]):
        yield compare(
            f"stillhouse {' '.join(arguments)}, against starting Python",
            lambda arguments=arguments: _run("-m", "stillhouse", *arguments),  # type: ignore[misc]
            lambda: _run("-c", "pass"),
        )
    yield compare(
        "import torch, against starting Python (what the commands above avoid)", _import_torch, _bare, pairs=3
    )


def _bare() -> None:
    _run("-c", "pass")


def _import_torch() -> None:
    _run("-c", "import torch")


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
