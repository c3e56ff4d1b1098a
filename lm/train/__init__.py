"""Training, whatever the stage: the compiled step, losses, optimizers, the loop, faults.

This room may import base, parallel, model, weights and infer. Start reading at loop.py, then
program.py and train_step.py.
"""
