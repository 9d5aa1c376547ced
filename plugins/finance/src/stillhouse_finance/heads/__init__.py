"""Heads of finance: what fraud and volatility mean."""

from __future__ import annotations

from stillhouse_finance.heads.fraud import Fraud
from stillhouse_finance.heads.volatility import Volatility

__all__ = ["Fraud", "Volatility"]
