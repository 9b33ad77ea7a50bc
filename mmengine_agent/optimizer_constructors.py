"""How parameters of a backbone are trained: weight decay and learning rates by layer."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from agent_attention.backbones import Backbone
from mmengine_agent.errors import UserError

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


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class LayerDecayConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with layer-wise decay of learning rates (BEiT, arXiv 2106.08254).

    Beside mmengine's own keys, ``paramwise_cfg`` takes ``layer_decay_rate``: the learning rate of
    each stage of our backbones (a block of ``AgentViT``) is that of the next times this number; the
    embeddings come before the first stage, and what is behind the last one keeps the full rate.

    Raises:
        UserError: if the model has no backbone of ours, or the config no such number or no
            learning rate.
    """

    def __init__(self, optim_wrapper_cfg: Any, paramwise_cfg: Any = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        decay = (paramwise_cfg or {}).get("layer_decay_rate")
        if not isinstance(decay, int | float) or not 0 < decay <= 1:
            raise UserError(
                "LayerDecayConstructor needs optim_wrapper.paramwise_cfg.layer_decay_rate, above 0 "
                f"and up to 1, such as 0.7; got {decay!r}"
            )
        self.layer_decay = float(decay)
        if self.base_lr is None:
            raise UserError("LayerDecayConstructor needs optim_wrapper.optimizer.lr")

    def add_params(
        self, params: list[dict[str, Any]], module: nn.Module, prefix: str = "", **more: Any
    ) -> None:
        """Append the parameters of a module to the groups, as mmengine does, then lower rates."""
        super().add_params(params, module, prefix=prefix, **more)
        if prefix:
            return  # of the recursion; the whole model comes last
        backbone = getattr(module, "backbone", None)
        if not isinstance(backbone, Backbone):
            raise UserError(f"LayerDecayConstructor takes our backbones, not {type(backbone)}")
        full: Any = self.base_lr
        rates = learning_rates(backbone, self.layer_decay)
        for group in params:
            group["lr"] = group.get("lr", full) * rates.get(group["params"][0], 1.0)


def learning_rates(backbone: Backbone, decay: float) -> dict[nn.Parameter, float]:
    """The share of the learning rate that each parameter of the stages has."""
    found: dict[nn.Parameter, float] = {}
    for stage in range(backbone.num_stages, -1, -1):
        rate = decay ** (backbone.num_stages + 1 - stage)
        for part in backbone.stage_modules(stage):
            inside = part.parameters() if isinstance(part, nn.Module) else [part]
            found |= dict.fromkeys(inside, rate)
    return found
