"""Train a detector or a segmentor; ``agent-attention train`` is the same."""

from mmengine_agent.commands.train import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
