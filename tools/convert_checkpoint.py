"""Convert a published checkpoint; ``agent-attention convert`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("convert")
