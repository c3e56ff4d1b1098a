"""Fetches the pages of one web site into gzip WARC files, politely and resumably.

The engine, the queue, retries and throttling are Scrapy's; Protego reads robots.txt and warcio
writes WARC. This room may import data.records and lm.base. Start reading at `run.crawl`, then
`spider.SiteSpider`.
"""
