"""The plugin keeps the contract, on the embedded data."""

import stillhouse.testing

test_contract = stillhouse.testing.contract("medicine")
