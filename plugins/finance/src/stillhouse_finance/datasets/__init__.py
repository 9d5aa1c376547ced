"""Datasets of finance."""
