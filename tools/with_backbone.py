"""Write a config with another backbone; ``agent-attention backbone`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("backbone")
