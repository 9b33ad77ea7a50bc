"""What is exported of a detector: up to the raw outputs of its dense heads."""

from collections.abc import Iterable

from torch import Tensor, nn

from mmengine_agent.errors import UserError
from mmengine_agent.export.modules import Exported

_KINDS = ("cls_score", "bbox_pred", "output2", "output3")  # of what a dense head returns


class OneStage(Exported):
    """mmdet's one-stage detectors up to what ``bbox_head`` says of each place."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to ``cls_score_0``, ..., ``bbox_pred_0``, ...: (B, C, H_i, W_i)."""
        return by_level(self.model.bbox_head(self.model.extract_feat(self.prepare(image))))


class TwoStage(Exported):
    """mmdet's two-stage detectors up to the proposals: the neck's maps, and the RPN's outputs."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to ``map_0``, ..., ``rpn_cls_score_0``, ..., ``rpn_bbox_pred_0``, ...."""
        maps = self.model.extract_feat(self.prepare(image))
        rpn = by_level(self.model.rpn_head(maps))
        features = {f"map_{level}": each for level, each in enumerate(maps)}
        return features | {f"rpn_{name}": each for name, each in rpn.items()}


def by_level(outputs: Iterable[Iterable[Tensor]]) -> dict[str, Tensor]:
    """Names for what a dense head returns: of each kind of output a tensor a level."""
    return {
        f"{kind}_{level}": each
        for kind, levels in zip(_KINDS, outputs, strict=False)
        for level, each in enumerate(levels)
    }


def exported(model: nn.Module, normalise: nn.Module, labels: bool) -> Exported:
    """The part of a detector that can be exported.

    Raises:
        UserError: if it is no one- or two-stage detector, or labels are asked for.
    """
    if labels:
        raise UserError("--labels is for segmentors; the config is of a detector")
    if hasattr(model, "rpn_head"):
        return TwoStage(model, normalise)
    if hasattr(model, "bbox_head"):
        return OneStage(model, normalise)
    raise UserError(
        f"cannot export a {type(model).__name__}: detectors with an rpn_head or a bbox_head can "
        "be exported"
    )
