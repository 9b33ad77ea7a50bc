"""Predict on images, folders, patterns and videos; ``agent-attention predict`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("predict")
