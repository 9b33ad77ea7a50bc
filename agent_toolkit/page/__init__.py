"""A page that shows what a model predicts, and what its agents do.

All but ``layout`` works without Gradio: what is computed stands apart from how it is laid out.
"""
