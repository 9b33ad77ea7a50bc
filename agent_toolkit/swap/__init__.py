"""What tells whether softmax attention of a trained model can be swapped: errors and a search.

On torch alone: ``benchmarks/swap_vit.py`` uses it on a model that no framework knows.
"""
