"""``tools/get_flops.py`` as a command."""

from mmengine_agent.commands.script import load_main

main = load_main("get_flops")
