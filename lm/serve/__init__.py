"""A model as a service: conversations in the terminal, and an HTTP API as OpenAI's.

This room may import all rooms of lm/ up to stages. Start reading at chat_session.py for the
terminal, which needs no extra, and at app.py for the server, which needs the extra `serve`.
"""
