"""Puts top_level.txt next to a wheel's METADATA: openmim looks there for the folder of ``.mim``."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class TopLevelHook(BuildHookInterface):
    """Hatchling writes no such file by itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file to what is built."""
        folder = f"{self.build_config.builder.artifact_project_id}.dist-info"
        build_data["force_include"]["requirements/top_level.txt"] = f"{folder}/top_level.txt"
