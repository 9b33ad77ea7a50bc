"""Export a model to ONNX or .pt2; ``agent-attention export`` is the same."""

from agent_toolkit.commands.export import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
