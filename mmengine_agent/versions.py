"""Which OpenMMLab versions the toolkit runs with, checked at import.

Both families of distributions are supported: the maintained ones (``onedl-mm*``) and upstream's.
They install the same import names, so the check reads ``__version__`` and never a distribution.
"""

from importlib import import_module
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

INSTALL = "pip install -r requirements/openmmlab.txt (CONTRIBUTING.md says how mmcv is built)"


class Support(NamedTuple):
    """Versions of one package that work: from ``first`` on, below ``below``."""

    first: str
    below: str
    maintained: str
    upstream: str


# Tested: the onedl pins of requirements/openmmlab.txt and those of requirements/upstream.txt.
SUPPORTED = {
    "mmengine": Support("0.10.7", "1.0", "onedl-mmengine==0.10.12", "mmengine==0.10.7"),
    "mmcv": Support("2.1.0", "3.0", "onedl-mmcv==2.3.6", "mmcv==2.1.0"),
    "mmdet": Support("3.3.0", "4.0", "onedl-mmdetection==3.5.1", "mmdet==3.3.0"),
    "mmseg": Support("1.2.2", "2.0", "onedl-mmsegmentation==1.4.2", "mmsegmentation==1.2.2"),
}


def require(*names: str) -> None:
    """Import packages and check their versions.

    Raises:
        ImportError: if a package is missing, broken or of an unsupported version; one sentence
            that says what to install.
    """
    for name in names:
        first, below, maintained, upstream = SUPPORTED[name]
        install = f"install {maintained} or {upstream}"
        try:
            found = str(getattr(import_module(name), "__version__", "unknown"))
            supported = Version(first) <= Version(found) < Version(below)
        except InvalidVersion:
            supported = False
        except AssertionError as error:  # upstream's mmdet and mmseg assert their parents' versions
            raise ImportError(
                f"{name} refuses the versions beside it ({' '.join(str(error).split())}): install "
                f"one family in whole, with {INSTALL}."
            ) from error
        except ModuleNotFoundError as error:
            raise ImportError(
                f"{name} cannot be imported ({error}): {install}, or everything with {INSTALL}."
            ) from error
        if not supported:
            raise ImportError(
                f"{name} {found} is not supported (needs >={first}, <{below}): {install}."
            )
        if name == "mmcv":
            _require_mmcv_operators()


def _require_mmcv_operators() -> None:
    try:
        import_module("mmcv._ext")
    except ImportError as error:
        raise ImportError(
            f"mmcv has no compiled operators for this torch ({error}): build it again with "
            "`rm -r .venv && make install`, or take a prebuilt wheel as README.md says."
        ) from error
