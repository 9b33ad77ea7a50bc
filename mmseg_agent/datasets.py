"""ADE20K-like data with class names, and with colours or numbers, of the user's own."""

from io import BytesIO
from typing import Any

from mmengine import fileio
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmengine_agent.data.images import ImageError
from mmseg_agent.data.palette import Table, map_labels


class NamedSegDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset``, with the names given as ``metainfo`` in ``METAINFO`` too.

    mmseg's confusion_matrix and misc/browse_dataset look there, where a data set that is a class
    of its own has its names, and end with KeyError otherwise.

    Args:
        label_table: labels by colour or number, for ``LoadMappedAnnotations``.
    """

    def __init__(self, *args: Any, label_table: Table | None = None, **kwargs: Any) -> None:
        self.label_table = dict(label_table or {})
        super().__init__(*args, **kwargs)
        self.METAINFO = self.metainfo

    def get_data_info(self, idx: int) -> dict[str, Any]:
        info: dict[str, Any] = super().get_data_info(idx)
        return {**info, "label_table": self.label_table}


class LoadMappedAnnotations(LoadAnnotations):
    """mmseg's ``LoadAnnotations`` for label maps of colours, or of numbers in no order.

    What they stand for is the ``label_table`` of the data set.
    """

    def _load_seg_map(self, results: dict[str, Any]) -> None:
        path = results["seg_map_path"]
        image = Image.open(BytesIO(fileio.get(path, backend_args=self.backend_args)))
        try:
            results["gt_seg_map"] = map_labels(image, results["label_table"])
        except ImageError as error:
            raise ImageError(error.args[0], f"{path}: {error.args[1]}") from None
        results["seg_fields"].append("gt_seg_map")
