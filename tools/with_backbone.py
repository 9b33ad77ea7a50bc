"""Write a config with another backbone; ``agent-attention backbone`` is the same."""

from agent_toolkit.commands.backbone import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
