"""Draw what agents do; ``agent-attention attention`` is the same."""

from agent_toolkit.commands.attention import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
