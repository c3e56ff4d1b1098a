"""The page at / of the server: chat, documents, tokens, the inside of a model, and blind votes.

It is a part of the room serve. What the API of OpenAI gives, the page asks of that; the other
routes are in views.py, the files of the page in static/. Start reading at mounting.py.
"""
