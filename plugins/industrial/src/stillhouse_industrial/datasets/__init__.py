"""Datasets: run-to-failure histories cut into windows (C-MAPSS, a simulator, the user's own)."""
