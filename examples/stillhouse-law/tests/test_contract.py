"""The plugin keeps the contract: one test per check and component."""

from pathlib import Path

import stillhouse.testing

SAMPLE = Path(__file__).parent / "documents.csv"

test_contract = stillhouse.testing.contract("law", options={"law/documents": {"path": str(SAMPLE), "length": 16}})
