"""``python -m mmengine_agent.commands`` is ``agent-attention``, for launchers."""

from mmengine_agent.commands import main

if __name__ == "__main__":
    main()
