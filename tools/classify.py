"""Classify with a published ImageNet file; ``agent-attention classify`` is the same."""

from agent_toolkit.commands.classify import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
