"""Make one HTML file of a work directory; ``agent-attention report`` is the same."""

from agent_toolkit.commands.report import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
