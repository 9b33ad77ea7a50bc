"""Classify with a published ImageNet file; ``agent-attention classify`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("classify")
