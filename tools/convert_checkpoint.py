"""Convert a published checkpoint; ``agent-attention convert`` is the same."""

from agent_toolkit.commands.convert import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
