"""The good pairs of an ADE20K-like set, linked; the original is read only."""

from pathlib import Path

from mmengine_agent.data.check import Place
from mmengine_agent.data.faults import FAULT, Findings
from mmengine_agent.data.new_folder import require_some
from mmseg_agent.data.label_maps import Pair, main_suffix


def link_pairs(place: Place, pairs: list[Pair], findings: Findings, folder: Path) -> str:
    """Link the good pairs below a folder; what was kept, in one line.

    Links of images get the ending that most images have: OpenCV reads what is in a file, whatever
    its ending.
    """
    bad = findings.at(*findings.kinds(FAULT))
    good = [pair for pair in pairs if pair.name not in bad]
    require_some(good, place.name)
    ending = main_suffix([pair.image for pair in pairs])
    for pair in good:
        _link(folder / "images" / place.name / f"{pair.name}{ending}", pair.image)
        _link(folder / "annotations" / place.name / f"{pair.name}.png", pair.label)
    return f"{place.name}: {len(good)} of {len(pairs)} pairs"


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(target.resolve())
