"""Benchmarks of data processing against other libraries, one function for each command.

It may import data.web, data.shards and what they import, and configs/data/fineweb.py. Start reading
at `benchmarks.tokenizer`; to add a benchmark, write such a function, list it in `benchmarks.ALL`,
and give it a parser in data/bench.py.
"""
