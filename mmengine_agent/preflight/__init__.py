"""What can be known to go wrong before the first iteration, all at once and in one list.

``tools/train.py`` calls ``require_ready``. Here: ``annotations`` and ``data`` look at the data set,
``model`` at classes and checkpoints, ``run`` at work directory, device and workers, ``keys`` and
``signatures`` at settings that nothing reads.
"""
