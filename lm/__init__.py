"""Models, training and inference: files are commands (`python -m lm.chat`), folders are rooms.

It never imports data/. Start reading at README.md.
"""
