"""Prediction on images, folders and videos, whole or by a sliding window, for ``tools/predict.py``.

``inputs`` finds and reads, ``model`` loads and runs, ``sliding_window`` cuts an image up; a task's
``Writer`` puts the tiles together again, and ``output`` writes the files.
"""
