"""``tools/prepare_data.py`` as a command."""

from mmengine_agent.commands.script import load_main

main = load_main("prepare_data")
