"""Random forest; complete cases only."""
