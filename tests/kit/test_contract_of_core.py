"""The core's own components keep the contract that plugins keep."""

import stillhouse.testing

test_contract = stillhouse.testing.contract("core")
