"""Write a config with another backbone; ``agent-attention backbone`` is the same."""

from mmengine_agent.commands.backbone import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
