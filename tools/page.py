"""Show a model on a page in the browser; ``agent-attention demo`` is the same."""

from agent_toolkit.commands.demo import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
