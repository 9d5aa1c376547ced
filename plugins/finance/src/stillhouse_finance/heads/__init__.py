"""Heads of finance: what fraud, volatility, traded volume and forecasts mean."""

from __future__ import annotations

from stillhouse_finance.heads.forecast import Forecast
from stillhouse_finance.heads.fraud import Fraud
from stillhouse_finance.heads.volatility import Volatility
from stillhouse_finance.heads.volume import Volume

__all__ = ["Forecast", "Fraud", "Volatility", "Volume"]
