"""What data sets of both kinds share: checks before and during training, and where data are.

``faults`` is the table of what can be wrong; ``images`` opens files; ``mmdet_agent.data`` and
``mmseg_agent.data`` check their own formats. ``tools/prepare_data.py`` is the way in.
"""
