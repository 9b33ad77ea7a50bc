"""ADE20K-like data with class names of the user's own."""

from typing import Any

from mmseg.datasets import BaseSegDataset


class NamedSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset``, with the names given as ``metainfo`` in ``METAINFO`` too.

    mmseg's confusion_matrix and misc/browse_dataset look there, where a data set that is a class
    of its own has its names, and end with KeyError otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.METAINFO = self.metainfo
