"""Test a checkpoint: ``agent-attention test``, whose ``--help`` says more."""

from mmengine_agent.commands.test import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
