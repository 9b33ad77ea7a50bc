"""AdamW without weight decay for norms and tables of a backbone."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

_DECAYED = (nn.Linear, nn.Conv2d)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class NoDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor; what is no layer's own parameter in the backbone is not decayed.

    These are norms, position embeddings, biases of attention and class tokens, whatever they are
    called. Learning rates are those of ``paramwise_cfg``, where a key such as 'backbone' goes
    before all shorter ones and would decay them too.
    """

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **more: Any
    ) -> None:
        """Append the parameters of a module to the groups, as mmengine does, then lower decays."""
        super().add_params(params, module, prefix=prefix, **more)
        backbone = getattr(module, "backbone", None)
        if prefix or not isinstance(backbone, nn.Module):
            return  # of the recursion; the whole model comes last
        kept = set(backbone.parameters())
        for layer in backbone.modules():
            if isinstance(layer, _DECAYED):
                kept -= set(layer.parameters(recurse=False))
        for group in params:
            if group["params"][0] in kept:
                group["weight_decay"] = 0.0
