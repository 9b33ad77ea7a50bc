"""The backbones in the form mmengine asks for: with ``init_cfg`` and ``init_weights``."""

from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader

from agent_attention.backbones import BACKBONES, Backbone
from agent_attention.weights.fit import backbone_weights
from mmengine_agent.errors import UserError

_PRETRAINED = ("Pretrained", "mmengine.Pretrained", PretrainedInit)
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
        pretrained = [each for each in configs if each.get("type") in _PRETRAINED]
        self.init_cfg = [each for each in configs if each not in pretrained]
        super().init_weights()
        self.init_cfg = given
        for each in pretrained:
            load_backbone(self, each.get("checkpoint"), each.get("new_attention", False))


def registered(backbone: type[Backbone]) -> type[Backbone]:
    """A class of the same name that takes ``init_cfg`` too."""

    def __init__(self: Any, *args: Any, init_cfg: Any = None, **kwargs: Any) -> None:
        backbone.__init__(self, *args, **kwargs)
        self.init_cfg = init_cfg

    content = {
        "__init__": __init__,
        "__doc__": _DOC.format(doc=backbone.__doc__),
        "__module__": __name__,
    }
    return type(backbone.__name__, (backbone, _Initialised), content)


REGISTERED = {kind.__name__: registered(kind) for kind in BACKBONES.values()}
globals().update(REGISTERED)  # so that a model can be pickled


def load_backbone(model: Any, path: str | None, new_attention: bool = False) -> None:
    """Load the weights of a backbone from a file or address, all of them.

    Raises:
        UserError: if the file is missing, unreadable or does not fit; the file is named.
    """
    assert isinstance(model, Backbone)
    try:
        fit = backbone_weights(CheckpointLoader.load_checkpoint(path, "cpu"), model, new_attention)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the backbone from {path}: {error}") from error
    model.load_state_dict(fit.weights)
    print_log(f"backbone from {path}: {fit}", logger="current")
