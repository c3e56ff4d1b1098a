"""Reinforcement learning: sampled answers, their advantages, and the clipped policy loss.

This folder is part of the room stages. Start reading at policy_gradient.py; advantages.py is the
place for another estimator.
"""
