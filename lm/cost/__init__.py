"""What a training step costs: predicted by formula, told by the compiler, measured.

This room may import all rooms of lm/ up to stages, and only commands and train.py import it. Start
reading at README.md and estimate.py.
"""
