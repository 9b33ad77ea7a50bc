"""The raw outputs of a detector's dense heads, for those who decode boxes themselves."""

from collections.abc import Iterable

from torch import Tensor

from mmengine_agent.export.modules import Exported

_KINDS = ("cls_score", "bbox_pred", "output2", "output3")  # of what a dense head returns


class RawDetector(Exported):
    """mmdet's detectors: a one-stage one up to its head, a two-stage one up to the proposals."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to ``cls_score_0``, ..., ``bbox_pred_0``, ...: (B, C, H_i, W_i).

        Of two stages to the neck's ``map_0``, ..., and ``rpn_cls_score_0``, ....
        """
        maps = self.model.extract_feat(self.enter(image)[0])
        if not hasattr(self.model, "rpn_head"):
            return by_level(self.model.bbox_head(maps))
        features = {f"map_{level}": each for level, each in enumerate(maps)}
        return features | by_level(self.model.rpn_head(maps), "rpn_")


def by_level(outputs: Iterable[Iterable[Tensor]], prefix: str = "") -> dict[str, Tensor]:
    """Names for what a dense head returns: of each kind of output a tensor a level."""
    return {
        f"{prefix}{kind}_{level}": each
        for kind, levels in zip(_KINDS, outputs, strict=False)
        for level, each in enumerate(levels)
    }
