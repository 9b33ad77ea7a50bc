"""Segmentors as they are exported: logits, probabilities or labels of all pixels."""

from mmseg_agent.export.segmentor import Segmentor

__all__ = ["Segmentor"]
