"""The backbones in the form mmengine asks for: with ``init_cfg`` and ``init_weights``."""

from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader

import agent_attention
from agent_attention.checkpoint import backbone_weights
from agent_attention.openmmlab.errors import UserError


class _Initialised(BaseModule):
    """``init_weights`` that loads ``Pretrained`` weights in full or fails."""

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says; ``None`` keeps the initialisation of the constructor.

        Raises:
            UserError: if the checkpoint cannot be read or does not fit the backbone in full.
        """
        configs = self.init_cfg or []
        configs = [configs] if isinstance(configs, dict) else list(configs)
        others = [config for config in configs if not _is_pretrained(config)]
        if others:
            given, self.init_cfg = self.init_cfg, others
            super().init_weights()
            self.init_cfg = given
        for config in configs:
            if _is_pretrained(config):
                load_backbone(self, config.get("checkpoint"))
        self._is_init = True


class AgentPVT(agent_attention.AgentPVT, _Initialised):
    __doc__ = f"""{agent_attention.AgentPVT.__doc__}
    In its registered form it also takes ``init_cfg``, a dict such as
    ``dict(type='Pretrained', checkpoint='agent_pvt_t.pth')`` or None.
    """

    def __init__(self, *args: Any, init_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.init_cfg = init_cfg


def _is_pretrained(config: dict[str, Any]) -> bool:
    return config.get("type") in ("Pretrained", "mmengine.Pretrained", PretrainedInit)


def load_backbone(model: torch.nn.Module, path: str) -> None:
    """Load the weights of ``model`` from a file or address, all of them.

    Raises:
        UserError: if the file is missing, unreadable or does not fit; the file is named.
    """
    try:
        weights = backbone_weights(CheckpointLoader.load_checkpoint(path, "cpu"), model)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise UserError(f"cannot load the backbone from {path}: {error}") from error
    model.load_state_dict(weights)
    print_log(f"loaded all {len(weights)} tensors of the backbone from {path}", logger="current")
