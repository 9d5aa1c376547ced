"""pytest fixtures for the tests of plugins, and the summary of `stillhouse.testing.contract`.

Nothing of this loads itself. Either name the module in ``pyproject.toml``, as ``stillhouse plugins new`` does::

    [tool.pytest.ini_options]
    addopts = "-p stillhouse.testing.fixtures"

or import a fixture in ``conftest.py``: ``from stillhouse.testing.fixtures import stillhouse_plugins``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

from stillhouse.testing.summary import pytest_terminal_summary

if TYPE_CHECKING:
    from stillhouse.plugins.manager import Manager

__all__ = ["Plugins", "pytest_terminal_summary", "stillhouse_plugins"]


class Plugins:
    """What the fixture `stillhouse_plugins` gives."""

    def using(self, module: Any, name: str = "") -> AbstractContextManager[Manager]:
        """``with stillhouse_plugins.using(module) as manager:`` is a manager with the core and the hook implementations
        of ``module`` (a module, or any object), and no installed plugin.

        Args:
            module: hook implementations.
            name: the plugin's id; by default the last part of the module's name.

        Raises:
            PluginError: the plugin does not keep the contract.
        """
        from stillhouse.plugins.manager import using

        return using(module, name)


@pytest.fixture
def stillhouse_plugins() -> Plugins:
    """Managers without any installed plugin."""
    return Plugins()
