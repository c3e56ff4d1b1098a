"""Fetches the pages of one web site into gzip WARC files, politely, and goes on after a kill.

The engine, the queue, retries and throttling are Scrapy's; Protego reads robots.txt and warcio
writes WARC. May import `lm.base.errors` and `lm.base.files`. Start reading at `run.crawl`, then
`spider.SiteSpider`.
"""
