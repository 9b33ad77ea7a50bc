"""Predictions of a segmentor: put together, saved and drawn."""
