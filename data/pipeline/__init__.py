"""The data steps of a recipe, as train.py runs them: crawl, clean, tokenizer and tokenize.

Each step reads and writes folders of the run's working directory, and continues after a kill. It
may import data.crawling, data.web, data.shards and what they import. Start reading at
`steps.crawl`.
"""
