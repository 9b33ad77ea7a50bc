"""Export a model with open sizes, to ONNX or torch.export's form: ``agent-attention export``, whose ``--help`` says more."""

from mmengine_agent.commands.export import main
from mmengine_agent.run.exit import run_tool

if __name__ == "__main__":
    run_tool(main)
