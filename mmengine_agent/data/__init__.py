"""Getting data ready: COCO and ADE20K from their servers, and checks of any set before training.

``tools/prepare_data.py`` is the way in. Here: ``sources``, ``download`` and ``unpack`` fetch;
``faults`` is the table of what can be wrong; ``images``, ``coco``, ``boxes``, ``masks`` and
``ade`` look for it; ``clean`` writes a copy without it; ``report`` and ``sheet`` show it.
"""
