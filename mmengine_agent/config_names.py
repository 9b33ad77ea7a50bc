"""The configs that this toolkit brings, by name, from wherever they are asked for."""

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from mmengine_agent.errors import UserError

_ROOT = Path(__file__).parents[1]
_INSTALLED = _ROOT / "agent_attention/.mim"  # of a wheel, where ``mim`` looks for them too
FOLDER = _INSTALLED if _INSTALLED.is_dir() else _ROOT  # holds configs/ and tools/


def known_configs() -> dict[str, Path]:
    """The path of each config by its name; those that others inherit from are left out."""
    files = sorted((FOLDER / "configs").rglob("*.py"))
    return {path.stem: path for path in files if "_base_" not in path.parts}


def locate_config(name: str) -> Path:
    """The file of a config: a path, or a name such as 'mask-rcnn_agent-pvt-t_fpn_1x_coco'.

    Those that packages of OpenMMLab bring are named as 'mmdet::atss/atss_r50_fpn_1x_coco.py'.

    Raises:
        UserError: if there is no such file and no config of that name; with the nearest name.
    """
    if "::" in name:
        return _locate_stock(*name.split("::", 1))
    path = Path(name)
    if path.is_file():
        return path
    known = known_configs()
    stem = path.name.removesuffix(".py")
    # 'configs/demo/NAME.py' from another folder is one of ours, 'mine/NAME.py' a path that is wrong
    parts = (*path.parts[:-1], stem)
    if stem in known and known[stem].with_suffix("").parts[-len(parts) :] == parts:
        return known[stem]
    near = get_close_matches(stem, known, 1)
    raise UserError(
        f"there is no config {name} (from {Path.cwd()}); "
        f"{f'did you mean {near[0]}? ' if near else ''}"
        "`agent-attention configs` lists those of the folder configs/"
    )


def _locate_stock(package: str, inside: str) -> Path:
    """The file of a config of mmdet's or mmseg's, whichever distribution it is of."""
    found = find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise UserError(f"{package}::{inside}: there is no package {package} here")
    folder = Path(found.submodule_search_locations[0], ".mim/configs")
    path = folder / inside
    if not path.is_file():
        every = {each.stem: each.relative_to(folder) for each in folder.rglob("*.py")}
        near = [f"{package}::{every[each]}" for each in get_close_matches(path.stem, every)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"{package}::{inside}: {package} has no such config ({folder}){hint}")
    return path
