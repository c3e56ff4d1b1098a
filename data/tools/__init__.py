"""Tools that a model may call while it answers; the sampler sees them as plain functions.

A tool takes the text of a call, returns its result as text and never raises. It may import lm.base
only. Start reading at `calculator.calculate`.
"""
