"""Datasets of sound and images."""
