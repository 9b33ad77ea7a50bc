"""Prediction on images, folders and videos, whole or by a sliding window."""
