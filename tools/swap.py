"""Swap softmax attention; ``agent-attention swap`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("swap")
