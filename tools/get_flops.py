"""Count the parameters and multiply-adds of a model; ``agent-attention flops`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("flops")
