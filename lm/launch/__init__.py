"""Starting runs: the jobs of a recipe, the trials of a sweep, the flags of train.py.

This room may import all rooms of lm/ up to stages, and report. Start reading at README.md and
recipes.py.
"""
