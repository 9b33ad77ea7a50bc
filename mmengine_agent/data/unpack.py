"""Unpacking ZIP files: nothing outside the folder, nothing overwritten, nothing half done."""

import os
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from mmengine_agent.errors import UserError


def unpack(archive: Path, root: Path) -> int:
    """Unpack an archive below ``root``; returns the number of files that are new there.

    Files are written to a hidden folder first, and moved when all are there. A later call goes on
    with that folder. Files that exist below ``root`` stay as they are.

    Raises:
        UserError: if the archive is damaged (its checksums tell) or names files outside ``root``.
    """
    staging = staging_of(archive, root)
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _members(zipped, archive)
            _require_space(members, staging)
            for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
                _extract(zipped, member, staging)
    # the last for ways of compression that zipfile does not know
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{archive} is damaged ({error}); remove it, and run this again") from error
    new = _place(staging, root)
    shutil.rmtree(staging)
    return new


def staging_of(archive: Path, root: Path) -> Path:
    """The folder that an archive is unpacked in; there while that has not come to its end."""
    return root / f".{archive.name}.unpacking"


def _members(zipped: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive; UserError if one would be written outside, or be a link."""
    files = [member for member in zipped.infolist() if not member.is_dir()]
    for member in zipped.infolist():
        path = PurePosixPath(member.filename)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename
        if outside or stat.S_ISLNK(member.external_attr >> 16) or not path.parts:
            raise UserError(
                f"{archive} is refused: {member.filename} is a link or lies outside the folder; "
                "nothing was unpacked"
            )
    return files


def _require_space(members: list[zipfile.ZipInfo], staging: Path) -> None:
    staging.mkdir(parents=True, exist_ok=True)
    size = sum(member.file_size for member in members if not (staging / member.filename).exists())
    free = shutil.disk_usage(staging).free
    if size > free:
        raise UserError(
            f"{staging.parent} has {free / 1e9:.1f} GB free, and unpacking takes {size / 1e9:.1f}"
        )


def _extract(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, staging: Path) -> None:
    """Write a file, unless it is there; it has its name once it is whole and its CRC was right."""
    target = staging / member.filename
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = staging / ".part"
    with zipped.open(member) as source, part.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    os.replace(part, target)


def _place(staging: Path, root: Path) -> int:
    """Move what is in the staging folder below ``root``; what exists there stays."""
    new = 0
    for top in sorted(staging.iterdir()):
        files = [top, *top.rglob("*")]
        if not (root / top.name).exists():
            new += sum(path.is_file() for path in files)
            top.rename(root / top.name)  # at once: a folder of that name is whole
        else:
            new += sum(_move(path, root / path.relative_to(staging)) for path in files)
    return new


def _move(path: Path, target: Path) -> bool:
    """Move a file, unless there is one already; whether it was moved."""
    if not path.is_file() or target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    return True
