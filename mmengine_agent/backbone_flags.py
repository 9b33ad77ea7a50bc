"""Which backbone a user asks for: names of all that there are, and the flags of the tools."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any, NamedTuple

from agent_attention.backbones import BACKBONES, Backbone
from mmengine_agent.errors import UserError
from mmengine_agent.published import IMAGENET_FILES

AGENT_RULES = ("published", "rule", "bounded")  # of ``agent_grids``
_PREFIXES = {"vit": "agent_deit", "flatten_pvt_v2": "flatten_pvtv2"}


class Choice(NamedTuple):
    """A backbone by name."""

    family: type[Backbone]
    options: dict[str, Any]  # of its constructor


def choices() -> dict[str, Choice]:
    """Every backbone and size, by the name that its ImageNet file has in ``checkpoints``."""
    found = {}
    for key, family in BACKBONES.items():
        prefix = _PREFIXES.get(key, key if key.startswith("flatten") else f"agent_{key}")
        for arch in family.ARCHS:
            size = arch if arch[-1].isdigit() else arch[0]
            found[f"{prefix}_{size}"] = Choice(family, {"arch": arch})
    for name, file in IMAGENET_FILES.items():
        base, _, size = name.rpartition("_")
        if base in found and size == str(file.img_size):
            family, options = found[base]
            found[name] = Choice(family, {**options, **family.options_at(file.img_size)})
    return found


class BackboneFlags(NamedTuple):
    """What a user asks for; without a name, nothing."""

    name: str | None = None
    pretrained: str | None = None
    from_scratch: bool = False
    keep_optimizer: bool = False
    agents: str | int | None = None

    @classmethod
    def add_to(cls, parser: ArgumentParser, training: bool = False, agents: bool = True) -> None:
        """Add the flags to a parser; those of weights and optimizer if it is of a training."""
        text = "in place of the config's own: agent_pvt_t, agent_swin_b, flatten_pvtv2_b0, ..."
        parser.add_argument("--backbone", metavar="NAME", help=text)
        if agents:
            cls.add_agents_to(parser)
        if training:
            cls.add_weights_to(parser)

    @staticmethod
    def add_agents_to(parser: ArgumentParser) -> None:
        """Add the flag of agent grids."""
        text = "of each stage: published, rule, bounded (fewer on small maps), or a number"
        parser.add_argument("--agents", type=_agents, metavar="RULE", help=text)

    @staticmethod
    def add_weights_to(parser: ArgumentParser) -> None:
        """Add the flags of weights and optimizer."""
        add = parser.add_argument_group("with another backbone").add_argument
        add("--pretrained", metavar="FILE", help="its weights (default: checkpoints/NAME.pth)")
        add("--from-scratch", action="store_true", help="no weights, no frozen stages")
        text = "leave the config's optimizer; else AdamW that does not decay norms and tables"
        add("--keep-optimizer", action="store_true", help=text)

    @classmethod
    def of(cls, args: Namespace) -> "BackboneFlags":
        """The flags a user gave.

        Raises:
            UserError: if they contradict each other.
        """
        given = {key: getattr(args, key, None) for key in cls._fields[1:]}
        if given["pretrained"] and given["from_scratch"]:
            raise UserError("--pretrained and --from-scratch: give one of them")
        name = getattr(args, "backbone", None)
        if given["keep_optimizer"] and name is None:
            raise UserError("--keep-optimizer goes with --backbone, which alone changes it")
        return cls(name, **{key: value for key, value in given.items() if value})

    def init_cfg(self, usual: str) -> dict[str, str] | None:
        """That of the backbone, whose weights are usually in that file."""
        file = self.pretrained or usual
        return None if self.from_scratch else {"type": "Pretrained", "checkpoint": file}


def _agents(text: str) -> str | int:
    """Type of ``--agents``."""
    if text.isdecimal() and int(text):
        return int(text)
    if text not in AGENT_RULES:
        raise ArgumentTypeError(f"{', '.join(AGENT_RULES)}, or a number of agents; got {text}")
    return text
