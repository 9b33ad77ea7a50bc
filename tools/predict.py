"""Predict on images, folders, patterns and videos; ``agent-attention predict`` is the same."""

from agent_toolkit.commands.predict import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
