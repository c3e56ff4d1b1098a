"""Generation: how tokens are drawn, rows of unequal length with a cache, tool calls.

This room may import base, parallel and model. Start reading at engine.py.
"""
