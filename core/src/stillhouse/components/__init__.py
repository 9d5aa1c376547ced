"""The core's own components beside heads, objectives and methods: models, trees, datasets, metrics; `builtin` registers
all of the core's through the hooks that any plugin uses."""
