"""Which OpenMMLab versions the toolkit runs with, checked at import.

Both families of distributions are supported: the maintained ones (``onedl-mm*``) and upstream's.
They install the same import names, so the check reads ``__version__`` and never a distribution.
"""

from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

INSTALL = "pip install -r requirements/openmmlab.txt (CONTRIBUTING.md says how mmcv is built)"


class Support(NamedTuple):
    """Versions of one package that work: from ``first`` on, below ``below``."""

    first: str
    below: str
    maintained: str
    upstream: str

    def contains(self, version: str) -> bool:
        """Whether a version works; a release candidate counts as its release."""
        try:
            release = Version(Version(version).base_version)
        except InvalidVersion:
            return False
        return Version(self.first) <= release < Version(self.below)


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
        support = SUPPORTED[name]
        found = str(getattr(_import(name), "__version__", "unknown"))
        if not support.contains(found):
            raise ImportError(
                f"{name} {found} is not supported (needs >={support.first}, <{support.below}): "
                f"install {support.maintained} or {support.upstream}."
            )
        if name == "mmcv":
            _require_mmcv_operators()


def _import(name: str) -> ModuleType:
    support = SUPPORTED[name]
    try:
        return import_module(name)
    except AssertionError as error:  # upstream's mmdet and mmseg assert their parents' versions
        raise ImportError(
            f"{name} refuses the versions beside it ({' '.join(str(error).split())}): install one "
            f"family in whole, with {INSTALL}."
        ) from error
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} cannot be imported ({error}): install {support.maintained} or "
            f"{support.upstream}, or everything with {INSTALL}."
        ) from error


def _require_mmcv_operators() -> None:
    try:
        import_module("mmcv._ext")
    except ImportError as error:
        raise ImportError(
            f"mmcv has no compiled operators for this torch ({error}): build it again with "
            "`rm -r .venv && make install`, or take a prebuilt wheel as README.md says."
        ) from error
