"""Export a model to ONNX or .pt2; ``agent-attention export`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("export")
