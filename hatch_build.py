"""Two hooks of hatchling, for what it does not do by itself."""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class TopLevelHook(BuildHookInterface):
    """Puts top_level.txt next to a wheel's METADATA: openmim looks there for ``.mim``'s folder."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to what is built."""
        folder = f"{self.build_config.builder.artifact_project_id}.dist-info"
        build_data["force_include"]["requirements/top_level.txt"] = f"{folder}/top_level.txt"


class ReadmeHook(MetadataHookInterface):
    """README.md for a package index, which has neither the pictures nor the pages of docs/."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description; relative links become plain text, relative pictures are left out."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        text = re.sub(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*", "", text)
        text = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
