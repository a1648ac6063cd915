"""Logistic regression; plain Python."""
