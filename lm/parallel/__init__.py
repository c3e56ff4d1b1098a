"""Several devices and processes: the mesh, how arrays are split over it, keys, process start.

This room may import base. Start reading at sharding.py.
"""
