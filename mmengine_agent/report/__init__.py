"""The report of a work directory: what testing records for it, what is read, and the page.

``record`` (with ``evaluation/record`` of each task) runs inside ``tools/test.py`` and leaves
``evaluation.json``; ``workdir``, ``charts`` and ``page`` turn a work directory into one HTML file.
"""
