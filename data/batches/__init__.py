"""Chooses where a training run's batches come from, and prepares that data.

Token shards are used if they exist; texts, conversations and tasks are converted to shards when the
run starts. It may import data.shards, data.tasks, data.tools and what they import. Start reading at
`prepare.prepare_training_data`.
"""
