"""Attention: the reference, the ring over the mesh axis `context`, and the kernels of accelerators.

This folder is part of the room model. Start reading at reference.py; kernels.py chooses among them.
"""
