"""Show a model on a page in the browser; ``agent-attention demo`` is the same."""

from agent_toolkit.commands import run

if __name__ == "__main__":
    run("demo")
