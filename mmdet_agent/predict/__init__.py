"""Predictions of a detector: put together, saved and drawn."""
