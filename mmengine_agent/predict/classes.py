"""What the labels of a model mean: names, colours, and the data set's own numbers for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmengine_agent.class_counts import class_total
from mmengine_agent.data.user_data import read_class_names, type_of
from mmengine_agent.draw import Colour, class_colours
from mmengine_agent.errors import UserError
from mmengine_agent.predict.model import dataset_of
from mmengine_agent.task import task_of


@dataclass(frozen=True)
class Classes:
    """Of each label of a model, in their order."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    ids: tuple[int, ...]  # COCO category ids, or the numbers in label maps


def classes_of(cfg: Config, meta: Mapping[str, Any], given: list[str] | None) -> Classes:
    """The classes of a model.

    Args:
        cfg: its config.
        meta: of its checkpoint.
        given: names from the command line, or a text file with a name a line; they go first, then
            the checkpoint's, the config's and those of the config's type of data set.

    Raises:
        UserError: if no names are known, or their number is not the model's.
    """
    wanted = class_total(cfg.model)
    sources = [{"classes": read_class_names(given)}] if given else [*_sources(cfg, meta)]
    known = [each["classes"] for each in sources if each.get("classes")]
    fitting = [names for names in known if len(names) == wanted]
    if not fitting:
        have = ", ".join(str(len(names)) for names in known)
        raise UserError(
            f"the model has {wanted} classes, and names for {have or 'none'} are known: "
            "give theirs with --classes, or the config that training wrote"
        )
    names = tuple(str(name) for name in fitting[0])
    palettes = (each.get("palette") for each in _sources(cfg, meta))
    colours = class_colours(wanted, palettes)
    return Classes(names, colours, task_of(cfg).label_numbers(cfg, names))


def _sources(cfg: Config, meta: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What is known of classes ('classes') and colours ('palette'), best first."""
    dataset = dataset_of(cfg)
    kind = type_of(dataset, cfg.get("default_scope") or "mmdet")
    own = meta.get("dataset_meta") or meta  # OpenMMLab 1 and 2 had it in the open, in capitals
    for source in (own, dataset.get("metainfo"), getattr(kind, "METAINFO", None)):
        lower = {str(key).lower(): value for key, value in (source or {}).items()}
        yield {key: value for key, value in lower.items() if isinstance(value, list | tuple)}
