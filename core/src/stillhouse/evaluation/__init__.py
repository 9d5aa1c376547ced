"""How a run is judged: size, FLOPs and latency, statistics over seeds, and the report."""
