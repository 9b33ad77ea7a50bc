"""Count the parameters and multiply-adds of a model; ``agent-attention flops`` is the same."""

from agent_toolkit.commands.flops import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
