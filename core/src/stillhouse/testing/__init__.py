"""The conformance kit: proof that a plugin keeps the contract, for its author's tests and for ours.

In a plugin's ``tests/test_contract.py``::

    import stillhouse.testing

    test_contract = stillhouse.testing.contract("law")

is one pytest item per check and component, such as ``test_contract[gradients[student:law/cnn]]``. The same checks run
without pytest by ``stillhouse plugins check law``. For tests of one's own there are `run_tiny` and, with
``from stillhouse.testing.fixtures import stillhouse_plugins``, a manager without any installed plugin.

pytest is needed by `contract` and `stillhouse.testing.fixtures` only, and comes with ``pip install
'stillhouse[testing]'``. Nothing of this is a pytest plugin that loads itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.testing.items import contract
    from stillhouse.testing.tiny import run_tiny

__all__ = ["contract", "run_tiny"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import importlib

        # No module here is called like one of these functions: importing it would put it in the function's place.
        home = {"contract": "items", "run_tiny": "tiny"}[name]
        return getattr(importlib.import_module(f"stillhouse.testing.{home}"), name)
    raise AttributeError(f"module 'stillhouse.testing' has no attribute '{name}'")
