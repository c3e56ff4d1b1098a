"""The data steps of a recipe, as train.py runs them: crawl or world, clean, tokenizer and tokenize.

Each step reads and writes folders of the run's working directory, and continues after a kill. It
may import data.crawling, data.web, data.shards, data.tasks and what they import. Start reading at
`steps.crawl`.
"""
