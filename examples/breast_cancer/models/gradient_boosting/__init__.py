"""Gradient boosting; imputes what is missing."""
