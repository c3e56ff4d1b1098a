"""Reports on finished runs: the report card of a recipe, and scaling laws over sizes.

This room may import all rooms of lm/ up to stages. Start reading at card.py.
"""
