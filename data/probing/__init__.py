"""What a model behind an OpenAI-compatible endpoint knows, and questions that such a model writes.

The task `probed` learns from the result. This room may import data.records, data.chat, data.tools,
data.tasks and what they import. Start reading at `asking.probe`.
"""
