"""``python -m agent_toolkit.commands`` is ``agent-attention``, for launchers."""

from agent_toolkit.commands import main

if __name__ == "__main__":
    main()
