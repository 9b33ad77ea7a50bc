"""Make one HTML file of a work directory; ``agent-attention report`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("report")
