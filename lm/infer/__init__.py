"""Inference: how tokens are drawn, and the engine whose rows serve requests beside each other.

This room may import base, parallel and model. Start reading at engine.py.
"""
