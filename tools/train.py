"""Train a detector or a segmentor; ``agent-attention train`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("train")
