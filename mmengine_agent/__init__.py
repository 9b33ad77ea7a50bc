"""What OpenMMLab asks of the toolkit, for the two adapters and the tools only.

Nothing else in ``agent_attention`` may import this package: the rest stands on torch alone.
"""
