"""Attention: a reference, a ring over the mesh axis `context`, and kernels for accelerators.

This folder is part of the room model. Start reading at reference.py; kernels.py chooses among them.
"""
