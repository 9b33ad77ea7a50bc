"""What the hooks of ``mmengine_agent.hooks`` need to resume a run where it stopped.

- ``newest``: the pointer to the newest checkpoint, and which one ``--resume`` takes.
- ``backends``: files that are written atomically, or removed later.
- ``data_order``, ``random_state``, ``loops``: the place in the data and the random states.
- ``wrong_run``: a checkpoint of another run, in one message.
- ``switch_on``: ``make_resumable`` puts all of it into a config.
"""
