"""Conversations with a model, in the terminal.

This room may import all rooms of lm/ up to stages. Start reading at chat_session.py.
"""
