"""Test a checkpoint; ``agent-attention test`` is the same."""

from agent_toolkit.commands.test import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
