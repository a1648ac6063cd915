"""Builds the images of the demo and of the foreign containers, with no image registry at hand."""
