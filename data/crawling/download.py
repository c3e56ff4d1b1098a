"""Downloads one response: complete, decoded and within its limits, or not at all."""

import asyncio

from scrapy.core.downloader.handlers._aiohttp import AiohttpDownloadHandler
from scrapy.exceptions import DownloadCancelledError
from scrapy.http import Headers, Request, Response

from data.crawling import bodies


def text(header: bytes) -> str:
  """Returns a header value as ASCII, with other bytes percent-encoded."""
  return ''.join(chr(byte) if byte < 128 else f'%{byte:02X}' for byte in header)


class DownloadHandler(AiohttpDownloadHandler):
  """Scrapy's aiohttp handler with strict decoding, tolerant headers and immediate cancellation.

  Scrapy's handler bounds the headers, the body and the time of a response. This one adds three
  things. Header values that are not UTF-8 are kept instead of failing. Content-Encoding is undone
  strictly and within the same limit as the body; a request with `cut` bytes in its meta receives
  the beginning of a longer body. A download ends when the spider is stopped.
  """

  @staticmethod
  def _extract_headers(response) -> Headers:
    headers = Headers()
    for name, value in response.raw_headers:
      headers.appendlist(name, value)
    return headers

  async def download_request(self, request: Request) -> Response:
    """Returns the response with its body decoded. Raises Fault, or what Scrapy's handler raises."""
    request.meta['received'] = 0  # a retry inherits the meta of the failed request
    response = await self._unless_stopped(super().download_request(request))
    cut = 'cut' in request.meta
    if 'download_stopped' in response.flags and not cut:
      return response  # only the headers of such a page are stored
    encoding = text(b','.join(response.headers.getlist('Content-Encoding')))
    limit = request.meta.get('cut', self._default_maxsize)
    return response.replace(body=bodies.decode(response.body, encoding, limit, cut=cut))

  async def _unless_stopped(self, coroutine) -> Response:
    """Awaits a download, and cancels it if the spider is stopped meanwhile."""
    download = asyncio.ensure_future(coroutine)
    stop = asyncio.ensure_future(self.crawler.spider.stopped.wait())
    await asyncio.wait({download, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not download.done():
      download.cancel()
      await asyncio.wait({download})
      raise DownloadCancelledError('the crawl was stopped')
    return download.result()
