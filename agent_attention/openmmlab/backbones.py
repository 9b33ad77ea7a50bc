"""The backbones in the form mmengine asks for: with ``init_cfg`` and ``init_weights``."""

from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader

import agent_attention
from agent_attention.backbones.base import Backbone as Pyramid
from agent_attention.openmmlab.errors import UserError
from agent_attention.weights.fit import backbone_weights

_DOC = """{doc}
    In its registered form it also takes ``init_cfg``, None or a dict such as
    ``dict(type='Pretrained', checkpoint='checkpoints/agent_pvt_t.pth')``; with
    ``new_attention=True`` in it, weights of the plain softmax model are accepted.
    """


class _Initialised(BaseModule):
    """``init_weights`` that loads ``Pretrained`` weights in full or fails."""

    init_cfg: Any

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; ``None`` keeps the initialisation of the constructor.

        Raises:
            UserError: if the checkpoint cannot be read or does not fit the backbone in full.
        """
        given = self.init_cfg or []
        configs = [given] if isinstance(given, dict) else list(given)
        others = [config for config in configs if not _is_pretrained(config)]
        if others:
            self.init_cfg = others
            super().init_weights()
            self.init_cfg = given
        for config in configs:
            if _is_pretrained(config):
                load_backbone(self, config.get("checkpoint"), config.get("new_attention", False))
        self._is_init = True


class AgentPVT(agent_attention.AgentPVT, _Initialised):
    __doc__ = _DOC.format(doc=agent_attention.AgentPVT.__doc__)

    def __init__(self, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_cfg = init_cfg


class AgentSwinTransformer(agent_attention.AgentSwinTransformer, _Initialised):
    __doc__ = _DOC.format(doc=agent_attention.AgentSwinTransformer.__doc__)

    def __init__(self, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_cfg = init_cfg


def load_backbone(model: Any, path: str | None, new_attention: bool = False) -> None:
    """Load the weights of a backbone from a file or address, all of them.

    Raises:
        UserError: if the file is missing, unreadable or does not fit; the file is named.
    """
    assert isinstance(model, Pyramid)
    try:
        fit = backbone_weights(CheckpointLoader.load_checkpoint(path, "cpu"), model, new_attention)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the backbone from {path}: {error}") from error
    model.load_state_dict(fit.weights)
    print_log(f"backbone from {path}: {fit}", logger="current")


def _is_pretrained(config: dict[str, Any]) -> bool:
    return config.get("type") in ("Pretrained", "mmengine.Pretrained", PretrainedInit)
