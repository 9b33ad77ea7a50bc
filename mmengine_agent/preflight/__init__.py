"""What can be known to go wrong before the first iteration, all at once and in one list.

``tools/train.py`` calls ``checks.require_ready``, which looks at classes, loaders, processes and
the work directory, asks the config's task about the data, and ``keys`` for settings that nothing
reads.
"""
