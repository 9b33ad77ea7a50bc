"""Test a checkpoint; ``agent-attention test`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("test")
