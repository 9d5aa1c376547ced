"""The plugin keeps the contract: one test per check and component."""

import stillhouse.testing

test_contract = stillhouse.testing.contract("audio_vision")
