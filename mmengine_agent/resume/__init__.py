"""What the hooks of ``mmengine_agent.hooks`` need to resume a run where it stopped.

- ``newest``: the pointer to the newest checkpoint, and which one ``--resume`` takes.
- ``data_order``, ``random_state``: the place in the data and the random states.
- ``switch_on``: ``make_resumable`` puts all of it, and a loop, into a config.
"""
