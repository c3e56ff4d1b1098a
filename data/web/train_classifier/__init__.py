"""The command `python -m data.web.train_classifier`; its library is classifier_training.py."""
