"""Check, convert and split data sets; ``agent-attention data`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("data")
