"""Train a detector or a segmentor; ``agent-attention train`` is the same."""

from agent_toolkit.commands.train import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
