"""Draw what agents do; ``agent-attention attention`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("attention")
