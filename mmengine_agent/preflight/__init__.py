"""What can be known to go wrong before the first iteration, all at once and in one list.

``tools/train.py`` calls ``checks.require_ready``. ``keys`` looks for settings that nothing reads,
``model`` at classes, ``machine`` at work directory, device and workers, and the
config's task at the data.
"""
