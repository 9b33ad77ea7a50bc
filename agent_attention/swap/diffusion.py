"""The self-attentions of diffusers' ``UNet2DConditionModel``, and AgentSD's schedule.

The attention's own processor runs; its call of ``F.scaled_dot_product_attention`` is answered by a
form. Agents serve the early denoising steps, which set the layout; the late ones, which bring the
details, have softmax.
"""

import sys
from typing import Any

from torch import Tensor, nn

from agent_attention.swap.adapter import Chosen, Size, ancestors
from agent_attention.swap.clusters import Clusters, MergedSoftmax
from agent_attention.swap.forms import Agent, Form
from agent_attention.swap.fused import FusedAttention

_DENOISERS = ("UNet2DConditionModel", "ControlNetModel")  # called with a latent and a time step
_LEVELS = 8  # of maps, each half as high and wide as the one before


def agent_sd(ratio: float = 0.4, until: int = 20) -> dict[int, Form | None]:
    """AgentSD's steps: agents of 4x4 cells first, from step ``until`` on softmax (of 50 steps).

    As published, with the attentions of the largest map alone: ``swap_attention(unet, None,
    min_tokens=height * width, steps=agent_sd())`` for a latent of that size.

    Args:
        ratio: part of the tokens that is merged as in ToMe, in all steps; 0 merges none.
        until: first step with softmax.
    """
    agent = Agent(clusters=Clusters(cell=4, agent_ratio=0.95, ratio=ratio))
    return {0: agent, until: MergedSoftmax(Clusters(cell=2, ratio=ratio)) if ratio else None}


class DiffusersAttention(FusedAttention):
    """diffusers' ``Attention`` within a UNet, where it is self-attention."""

    has_steps = True
    knows_size = True  # from the latent

    def __init__(self, name: str, module: nn.Module, model: nn.Module, size: Size = None) -> None:
        super().__init__(name, module, model, size)
        self.latent = (0, 0)

    @classmethod
    def concerns(cls, name: str, module: Any) -> bool:
        return not module.is_cross_attention

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        return None if find_denoiser(model, name) else f"it is in none of {', '.join(_DENOISERS)}"

    def watch(self, model: nn.Module) -> None:
        denoiser = find_denoiser(model, self.name)
        assert denoiser is not None
        self.hook_before(denoiser, self.see_latent)
        # similar tokens are looked for before the block's norm
        self.hook_before(ancestors(model, self.name)[0], self.see_tokens)

    def see_latent(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """The denoiser is called with a latent (B, C, H, W) and a time step."""
        given = dict(zip(("sample", "timestep"), args, strict=False)) | kwargs
        self.latent = given["sample"].shape[-2:]
        assert self.swap is not None
        self.swap.count_step(given["timestep"])

    def see_tokens(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """A block is called with tokens (B, T, C)."""
        self.tokens = args[0] if args else kwargs["hidden_states"]

    def choose_for(self, tokens: Tensor) -> Chosen | None:
        """``choose`` for tokens (B, T, C) of the latent, or of one of the smaller maps."""
        if tokens.dim() != 3:
            raise self.error("it is called with a map and not with tokens")
        maps = [tuple(-(-side // 2**i) for side in self.latent) for i in range(_LEVELS)]
        fits = [(h, w) for h, w in maps if h * w == tokens.shape[1]]
        self.map = fits[0] if fits else None
        return super().choose_for(tokens)

    def forced(self) -> list[tuple[nn.Module, str, Any]]:
        """The fused processor in the place of the explicit one."""
        if type(self.module.processor).__name__ != "AttnProcessor":
            return []
        fused = sys.modules[type(self.module).__module__].AttnProcessor2_0
        return [(self.module, "processor", fused())]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """As ``FusedAttention``; cross-attention is refused, and the block's input let go."""
        given = dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)) | kwargs
        if given.get("encoder_hidden_states") is not None:
            raise self.error("it is cross-attention: keys are given")
        try:
            return super().run(*args, **kwargs)
        finally:
            self.tokens = None


def find_denoiser(model: nn.Module, name: str) -> nn.Module | None:
    """The UNet that a module is in."""
    above = ancestors(model, name)
    return next((each for each in above if type(each).__name__ in _DENOISERS), None)
