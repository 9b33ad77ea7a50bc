"""Another backbone for any config: ``--backbone NAME`` of the tools.

The config's own backbone is built without memory, and run, to know the stride of each map that it
gives. ``head_inputs`` says which of them neck and heads read; the new one gives its maps of the
same strides.
"""

from collections.abc import Iterator, Sequence
from inspect import signature
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from agent_attention.backbones import BACKBONES
from mmengine_agent.backbone_flags import BackboneFlags, Choice, choices
from mmengine_agent.config_walk import type_name, walk
from mmengine_agent.errors import UserError, one_line
from mmengine_agent.head_inputs import Reader, readers, require_free
from mmengine_agent.task import ADAPTERS, task_of

_SIDE = 256  # of the image that tells the strides, in pixels
_KEPT = ("frozen_stages", "with_cp", "drop_path_rate")  # what means the same in every backbone
_DROP_PATH = 0.1  # where the config's own backbone has none: as in the smallest recipes
_IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}  # of RGB
_PAINTED = ("Normalize", "Expand", "RandomCenterCropPad")  # steps of pipelines that know them
_STEPS = ("train_dataloader", "val_dataloader", "test_dataloader", "custom_hooks", "tta_pipeline")
_ADAM = ("AdamW", "Adam")
# (lr, weight decay) in place of another optimizer's, as in our recipes for 16 images a step
_RATES = {
    ("mmdet", False): (1e-4, 0.05),
    ("mmseg", False): (6e-5, 0.01),
    ("mmdet", True): (1e-4, 1e-4),
    ("mmseg", True): (2e-4, 1e-4),
}
_PARAMWISE = (  # what mmengine's own constructor reads
    *("custom_keys", "norm_decay_mult", "bias_decay_mult", "bias_lr_mult"),
    *("bypass_duplicate", "flat_decay_mult", "dwconv_decay_mult"),
)
_CONSTRUCTORS = (None, "DefaultOptimWrapperConstructor", "LayerDecayConstructor")


def swap_backbone(cfg: Config, flags: BackboneFlags) -> None:
    """Put another backbone into a config, or its weights or agents, in place, and say what changed.

    Raises:
        UserError: if there is no such backbone, or the config's neck or heads cannot take it.
    """
    model = cfg.get("model") or {}
    holder: Any = model if "backbone" in model else model.get("detector", {})
    if flags == BackboneFlags():
        return
    if "type" not in (holder.get("backbone") or ()):
        raise UserError("--backbone: the config has no model.backbone to be replaced")
    if flags.name is not None:
        put_in_place(cfg, holder, flags)
    elif flags.from_scratch or flags.pretrained:  # the config's own with other weights
        holder.backbone.init_cfg = flags.init_cfg("")
    if flags.agents is not None:
        set_agents(holder.backbone, flags.agents)


def put_in_place(cfg: Config, holder: Any, flags: BackboneFlags) -> None:
    """Put the backbone that the flags name into a config, whose model or its detector holds it."""
    assert flags.name is not None
    known, name = choices(), flags.name.replace("-", "_").lower()
    if name not in known:
        raise UserError(f"--backbone {flags.name}: there is none of that name; {', '.join(known)}")
    require_free(holder)
    scope, choice = task_of(cfg).scope, known[name]
    maps = maps_of(holder.backbone, scope)
    found = list(readers(holder, len(maps)))
    read = sorted({each for reader in found for each in reader.read})
    if not read:
        raise UserError(
            f"--backbone: what reads the maps of a {type_name(holder)} is not known here"
        )
    stages = stages_of(choice, name, maps, read)
    if "pretrained" in holder:
        holder.pretrained = None
    old = holder.backbone
    holder.backbone = ConfigDict(new_backbone(choice, name, stages, old, flags))
    with torch.device("meta"):
        channels = choice.family(**choice.options, out_indices=stages).feature_info.channels()
    for reader in found:
        connect(reader, dict(zip(read, channels, strict=True)), maps)
    cfg.load_from = None  # weights of a model with the old backbone
    set_colours(cfg)
    if not flags.keep_optimizer and "optim_wrapper" in cfg:
        set_optimizer(cfg, scope, choice)
    import_adapter(cfg, scope)
    print(
        f"--backbone: {type_name(holder.backbone)} ({name}) in place of {type_name(old)}, stages "
        f"{', '.join(map(str, stages))} of {', '.join(map(str, channels))} channels"
    )


def set_agents(backbone: Any, agents: str | int) -> None:
    """Have a backbone take its agent grids from a rule, in place; see ``agent_grids``.

    Raises:
        UserError: if it has no agents.
    """
    for key in ("agent_shapes", "agent_shape"):
        for family in BACKBONES.values():
            if type_name(backbone) == family.__name__ and key in signature(family).parameters:
                backbone[key] = agents
                return
    raise UserError(f"--agents: {type_name(backbone)} has none; --backbone takes one that has")


def maps_of(backbone: Any, scope: str) -> list[tuple[int, int]]:
    """(channels, stride) of each map that a config's backbone gives.

    Raises:
        UserError: if it cannot be built, or gives something else than maps.
    """
    settings = {k: v for k, v in backbone.items() if k not in ("init_cfg", "pretrained")}
    fault = ""
    for device in ("meta", "cpu"):  # some layers read a tensor, or have no operator on 'meta'
        try:
            with DefaultScope.overwrite_default_scope(scope), torch.device(device), torch.no_grad():
                model: Any = MODELS.build(settings)
                model.eval()  # mmdet's own return nothing
                maps = model(torch.zeros(1, 3, _SIDE, _SIDE))
            return [(each.shape[1], round(_SIDE / each.shape[2])) for each in maps]
        except Exception as error:  # a backbone is anybody's code, and may raise anything
            fault = one_line(error)
    raise UserError(
        f"--backbone: what maps the config's own {type_name(backbone)} gives cannot be found out, "
        f"since it does not run here ({fault})"
    )


def stages_of(
    choice: Choice, name: str, maps: Sequence[tuple[int, int]], read: Sequence[int]
) -> tuple[int, ...]:
    """The new backbone's ``out_indices`` for those maps of the old one that are read.

    Raises:
        UserError: if it has no maps of their strides.
    """
    with torch.device("meta"):
        model = choice.family(**choice.options)
    if len(set(model.strides)) == 1:  # a plain ViT
        depths = {1: (len(model.strides) - 1,), len(model.out_indices): model.out_indices}
        if {stride for _, stride in maps} == set(model.strides) and len(read) in depths:
            return depths[len(read)]
        raise UserError(
            f"--backbone {name}: all its maps have stride {model.strides[0]}, and this config "
            f"wants strides {', '.join(str(stride) for _, stride in maps)}; take a pyramid"
        )
    strides = list(pyramid_strides(maps))
    absent = [strides[each] for each in read if strides[each] not in model.strides]
    if absent:
        raise UserError(
            f"--backbone {name}: the config's heads read a map of stride {absent[0]}, and this "
            f"backbone has strides {', '.join(map(str, model.strides))}"
        )
    return tuple(model.strides.index(strides[each]) for each in read)


def pyramid_strides(maps: Sequence[tuple[int, int]]) -> Iterator[int]:
    """The strides of maps, those of dilated stages as they are without: 4, 8, 8, 8 is 4, 8, 16, 32.

    Raises:
        UserError: if the maps are no pyramid.
    """
    before, last = 0, 0
    for channels, stride in maps:
        if stride <= last:
            if channels <= before:
                strides = ", ".join(str(each) for _, each in maps)
                raise UserError(
                    f"--backbone: the config's heads read maps of strides {strides}, which are no "
                    "pyramid from fine to coarse"
                )
            stride = 2 * last
        before, last = channels, stride
        yield stride


def new_backbone(
    choice: Choice, name: str, stages: tuple[int, ...], old: Any, flags: BackboneFlags
) -> dict[str, Any]:
    """The config of the new backbone."""
    kept = {key: old[key] for key in _KEPT if old.get(key) is not None}
    kept = {key: value for key, value in kept.items() if value is not False and value != -1}
    if flags.from_scratch:
        kept.pop("frozen_stages", None)  # random weights would never learn
    elif "frozen_stages" in kept:
        kept["frozen_stages"] = min(kept["frozen_stages"], stages[-1] + 1)
    return {
        "type": choice.family.__name__,
        **choice.options,
        "out_indices": stages,
        "drop_path_rate": _DROP_PATH,
        **kept,
        "init_cfg": flags.init_cfg(f"checkpoints/{name}.pth"),
    }


def connect(reader: Reader, channels: dict[int, int], maps: Sequence[tuple[int, int]]) -> None:
    """Give a neck or head the channels of the new maps, in place.

    Args:
        reader: what reads the backbone.
        channels: of the new maps, by the old positions; those that nobody reads are not there.
        maps: (channels, stride) of the old backbone.

    Raises:
        UserError: if its channels are not the old backbone's, so that it reads something else.
    """
    node, before = reader.node, [maps[each][0] for each in reader.maps]
    if reader.channels != before:
        raise UserError(
            f"--backbone: {reader.path}.{reader.key} is {reader.channels}, and the config's own "
            f"backbone gives {before}: how they are connected is not known here"
        )
    given = node[reader.key]
    new = [channels[each] for each in reader.maps if each in reader.read]
    node[reader.key] = new[0] if isinstance(given, int) else type(given)(new)
    if reader.read != reader.maps:
        node.update({k: v for k, v in (("start_level", 0), ("end_level", -1)) if k in node})
    place = sorted(channels)
    if reader.key == "in_channels" and "in_index" in node:
        index = [place.index(each) for each in reader.maps]
        given = node.in_index
        node.in_index = index[0] if isinstance(given, int) else type(given)(index)


def set_colours(cfg: Config) -> None:
    """Normalise images as ImageNet's RGB, in place, whatever the old weights were for."""
    for node in (cfg.model.get("data_preprocessor"), cfg.get("data_preprocessor")):
        while node and "data_preprocessor" in node:  # that of several branches
            node = node["data_preprocessor"]
        if node:
            node.pop("rgb_to_bgr", None)
            node.update({**_IMAGENET, "bgr_to_rgb": True})
    for part in _STEPS:
        for _, step in walk(cfg.get(part)):
            if step.get("type") in _PAINTED and any(step.get("mean") or ()):
                step.update({key: _IMAGENET[key] for key in _IMAGENET if key in step})
                step.to_rgb = True


def set_optimizer(cfg: Config, scope: str, choice: Choice) -> None:
    """AdamW that does not decay the backbone's norms and tables, in place.

    The learning rate of an AdamW that is there already stays; so do groups and clipping.
    """
    wrapper = cfg.optim_wrapper
    if wrapper.optimizer.type not in _ADAM:
        lr, decay = _RATES[scope, "PVT" in choice.family.__name__]
        wrapper.optimizer = ConfigDict(type="AdamW", lr=lr, weight_decay=decay)
    if wrapper.get("constructor") not in _CONSTRUCTORS:  # which knows the old backbone's layers
        given = wrapper.get("paramwise_cfg") or {}
        wrapper.paramwise_cfg = ConfigDict({k: given[k] for k in _PARAMWISE if k in given})
    if wrapper.get("constructor") != _CONSTRUCTORS[-1]:
        wrapper.constructor = "NoDecayConstructor"


def import_adapter(cfg: Config, scope: str) -> None:
    """Have OpenMMLab's tools find the backbone in a config, in place."""
    adapter = ADAPTERS[scope].partition(".")[0]
    given = (cfg.get("custom_imports") or {}).get("imports") or []
    given = [given] if isinstance(given, str) else list(given)
    imports = given if adapter in given else [*given, adapter]
    cfg.custom_imports = ConfigDict(imports=imports, allow_failed_imports=False)
