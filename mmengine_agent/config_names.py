"""The configs that this toolkit brings, by name, from wherever they are asked for."""

from difflib import get_close_matches
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

    Raises:
        UserError: if there is no such file and no config of that name; with the nearest name.
    """
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
