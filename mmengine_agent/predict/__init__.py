"""Prediction on images, folders and videos, whole or in tiles, for ``tools/predict.py``.

``inputs`` finds and reads, ``model`` loads and runs, ``tiles`` cuts an image up; ``detection`` and
``segmentation`` put the tiles together again, and ``output`` writes what comes of it.
"""
