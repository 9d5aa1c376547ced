"""Knowledge distillation for finance: card fraud, tabular risk, volatility."""
