"""Check, convert and split data sets; ``agent-attention data`` is the same."""

from agent_toolkit.commands.data import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
