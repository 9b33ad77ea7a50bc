"""Settings of a config that nothing reads: slips of the pen, with the name that was meant.

What is built from ``type`` is compared with what that class takes. A model's settings go through
many hands (``test_cfg`` from the detector to its heads, ``norm_cfg`` to a builder), so there a name
counts as read if it is a word of OpenMMLab's code at all: what is no word of it, nothing reads.
"""

import inspect
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmengine_agent.config_walk import walk as walk_paths
from mmengine_agent.preflight.signatures import (
    arguments,
    find,
    module_words,
    package_words,
    walk,
)

# read by tools, launchers and the runner, though no argument of it
_TOP = {"custom_imports", "model_wrapper_cfg", "find_unused_parameters", "compile", "runner_type"}
_TOP |= {"tta_model", "tta_pipeline", "activation_checkpointing"}
_ALWAYS = {"type", "_scope_", "_delete_", "init_cfg", "priority", "convert_to_iter_based"}
_ALWAYS |= {"_base_", "backend_args", "file_client_args"}
_FREE = {"custom_keys", "metainfo", "data_prefix", "dist_cfg", "init_kwargs"}  # keys are data
_FREE |= {"detector", "diffusion_cfg"}  # of trackers; of Detectron2 and latent diffusion
_HOOKS = {"runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint"}
_HOOKS |= {"visualization"}
_FEW = 15  # names that are listed
# where the things of a section, or of a key within, are registered
_SECTIONS = {
    "train_cfg": "LOOPS",
    "val_cfg": "LOOPS",
    "param_scheduler": "PARAM_SCHEDULERS",
    "default_hooks": "HOOKS",
    "custom_hooks": "HOOKS",
    "visualizer": "VISUALIZERS",
    "val_evaluator": "METRICS",
    "log_processor": "LOG_PROCESSORS",
    "train_dataloader": "DATASETS",
    "val_dataloader": "DATASETS",
    "optim_wrapper": "OPTIM_WRAPPERS",
}
_WITHIN = {
    "pipeline": "TRANSFORMS",
    "transforms": "TRANSFORMS",
    "sampler": "DATA_SAMPLERS",
    "batch_sampler": "DATA_SAMPLERS",
    "dataset": "DATASETS",
    "datasets": "DATASETS",
    "optimizer": "OPTIMIZERS",
    "vis_backends": "VISBACKENDS",
}


def unread_keys(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    """What of a config, or of ``--cfg-options``, nothing reads, with the nearest known name."""
    scope = cfg.get("default_scope") or "mmengine"
    yield from _top_keys(cfg, options)
    yield from _new_keys(cfg, options)
    hooks = cfg.get("default_hooks") or {}
    for name in hooks.keys() - _HOOKS:
        if get_close_matches(name, _HOOKS, 1, 0.8):
            yield _unread(f"default_hooks.{name}", "mmengine has no such hook", name, _HOOKS)
    for section, kind in _SECTIONS.items():
        yield from _typed(cfg.get(section), section, getattr(registries, kind), scope)
    for split in ("train", "val"):
        yield from _loader_keys(cfg.get(f"{split}_dataloader") or {}, f"{split}_dataloader")
    yield from _paramwise_keys(cfg.get("optim_wrapper") or {}, scope)
    model = cfg.get("model") or {}
    find_model = partial(find, registries.MODELS, scope=scope)
    yield from _loose(
        model, "model", [find_model(node["type"]) for node in walk(model) if node.get("type")]
    )


def _top_keys(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    known = _TOP | {*inspect.signature(Runner.__init__).parameters} - {"self", "cfg"}
    given = {path.split(".")[0]: path for path in options}
    for name in cfg:
        if name in known:
            continue
        if name in given:
            inside = _places(cfg, name)
            why = f"nothing reads it{inside}"
            yield _unread(given[name], why, name, () if inside else known)
        elif get_close_matches(name, known, 1, 0.85) and not _varies(name, known):
            yield _unread(name, "nothing reads it", name, known)


def _new_keys(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    """Options that add a key to a part without a type, next to one with almost the same name."""
    if not options or not cfg.filename:
        return
    before = dict(walk_paths(Config.fromfile(cfg.filename).get("model") or {}, "model"))
    for path in options:
        parent, _, name = path.rpartition(".")
        node = before.get(parent, {})
        if "type" not in node and name not in node:
            near = get_close_matches(name, node, 1, 0.7)
            if near and not name.isdigit():
                yield _unread(path, "the config has no such key there", name, near)


def _places(cfg: Config, name: str) -> str:
    """Where settings of the name of a file's variable are; the file has been read by now."""
    found = [place[1:] for place, key in _keys(cfg.to_dict(), "") if key == name]
    inside = [place for place in found if place != name]
    told = ", ".join(inside[:3])
    return f" any more; what counts is {told}" if inside else ""


def _varies(name: str, known: Iterable[str]) -> bool:
    """Whether a name is that of a file's own variable, such as ``val_evaluator_small``."""
    return name.endswith("_pipeline") or any(name.startswith(f"{each}_") for each in known)


def _typed(node: Any, path: str, registry: Registry, scope: str) -> Iterator[str]:
    """Keys that the class of a ``type`` does not take, here and within."""
    if isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _typed(child, f"{path}.{index}", registry, scope)
    if not isinstance(node, dict):
        return
    kind = find(registry, node["type"], scope) if node.get("type") else None
    if "type" in node and kind is None:
        return  # of another library, such as albumentations
    if kind is not None:
        yield from _unknown(node, path, kind)
    for key, child in node.items():
        if key not in _FREE:
            inner = getattr(registries, _WITHIN[key]) if key in _WITHIN else registry
            yield from _typed(child, f"{path}.{key}", inner, node.get("_scope_") or scope)


def _unknown(node: dict[str, Any], path: str, kind: Any) -> Iterator[str]:
    names, exact = arguments(kind)
    takes_more = _ALWAYS | _more(path)
    for key in node.keys() - names - takes_more:
        if exact or key not in package_words():
            yield _unread(f"{path}.{key}", f"{kind.__name__} does not take it", key, names)


def _more(path: str) -> set[str]:
    """What builders take out before the class is called."""
    if path == "optim_wrapper":
        return {"optimizer", "constructor", "paramwise_cfg"}
    return {"by_epoch"} if path in ("train_cfg", "val_cfg") else set()


def _loader_keys(loader: dict[str, Any], path: str) -> Iterator[str]:
    known = {*inspect.signature(DataLoader.__init__).parameters} - {"self"}
    known |= {"num_batch_per_epoch", "dataset", "sampler", "batch_sampler", *_ALWAYS}
    for key in loader.keys() - known:
        yield _unread(f"{path}.{key}", "torch's DataLoader does not take it", key, known)


def _paramwise_keys(wrapper: dict[str, Any], scope: str) -> Iterator[str]:
    name = wrapper.get("constructor", "DefaultOptimWrapperConstructor")
    kinds = [find(registries.OPTIM_WRAPPER_CONSTRUCTORS, name, scope)]
    yield from _loose(wrapper.get("paramwise_cfg") or {}, "optim_wrapper.paramwise_cfg", kinds)


def _loose(section: dict[str, Any], path: str, kinds: list[Any]) -> Iterator[str]:
    """Keys that are no word of the code of these classes, nor of OpenMMLab at all."""
    words = module_words([kind for kind in kinds if kind is not None])
    for place, key in _keys(section, path):
        if key not in words and key not in package_words() and key not in _ALWAYS:
            yield _unread(place, "no code of OpenMMLab has such a name", key, words)


def _keys(node: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, child in node.items():
            if isinstance(key, str) and key.isidentifier():
                yield f"{path}.{key}", key
            if key not in _FREE:
                yield from _keys(child, f"{path}.{key}")
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _keys(child, f"{path}.{index}")


def _unread(place: str, why: str, name: str, known: Iterable[str]) -> str:
    names = sorted(set(known) - {name})
    near = get_close_matches(name, names, 1, 0.6)
    meant = f"; did you mean {near[0]}?" if near else ""
    if not near and 0 < len(names) <= _FEW:
        meant = f"; it takes {', '.join(names)}"
    return f"config: {place}: {why}{meant}"
