"""Convert a published checkpoint; ``agent-attention convert`` is the same."""

from mmengine_agent.commands.convert import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
