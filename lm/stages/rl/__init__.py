"""Reinforcement learning: sampled answers, their advantages, and the losses that raise them.

This folder is part of the room stages. Start reading at policy_gradient.py. Every published
algorithm is a choice of three: an estimator of advantages.py, and a ratio and an aggregation of
policy_losses.py. configs/README.md has the table.
"""
