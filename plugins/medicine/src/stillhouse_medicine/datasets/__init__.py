"""Datasets of the field, each a function from a context and options to splits."""
