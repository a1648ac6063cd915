"""Nearest neighbours; NumPy only."""
