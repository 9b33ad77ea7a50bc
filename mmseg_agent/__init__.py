"""Agent Attention backbones for MMSegmentation 1.x, registered when this is imported."""

from mmengine_agent.versions import require

require("mmengine", "mmcv", "mmseg")

from mmseg.registry import DATASETS, MODELS, TRANSFORMS  # noqa: E402

from mmengine_agent.backbones import REGISTERED  # noqa: E402
from mmengine_agent.register import register  # noqa: E402
from mmengine_agent.simple_feature_pyramid import SimpleFeaturePyramid  # noqa: E402
from mmseg_agent.datasets import LoadMappedAnnotations, NamedSegDataset  # noqa: E402

register(MODELS)
DATASETS.register_module(module=NamedSegDataset, force=True)
TRANSFORMS.register_module(module=LoadMappedAnnotations, force=True)
globals().update(REGISTERED)

__all__ = [*REGISTERED, "SimpleFeaturePyramid"]
