"""Normalises URLs, and decides which of them belong to the crawled site."""

import urllib.parse

from lm.base.errors import UserError

LONGEST = 2083  # characters; the limit of browsers and of Scrapy
_PORTS = {'http': 80, 'https': 443}


def _without_dots(path: str) -> str:
  """Returns an absolute path with its '.' and '..' segments resolved (RFC 3986, 5.2.4)."""
  parts: list[str] = []
  segments = path.split('/')
  for segment in segments:
    if segment == '..':
      del parts[max(1, len(parts) - 1) :]
    elif segment != '.':
      parts.append(segment)
  return '/'.join(parts) + ('/' if segments[-1] in ('.', '..') else '')


def _netloc(scheme: str, host: str, port: int | None) -> str:
  host = f'[{host}]' if ':' in host else host.encode('idna').decode()
  return host if port in (None, _PORTS[scheme]) else f'{host}:{port}'


def normalise(url: str, base: str = '') -> str:
  """Returns an absolute http(s) URL in its normal form.

  The host is in lower case, unsafe characters are escaped, and there is neither a default port nor
  a fragment. Raises UserError that names the URL if it cannot be crawled, whatever `url` contains.
  """
  shown = ascii(url[:80])[:100]
  if len(url) > LONGEST:
    raise UserError(field='URL', value=f'{shown}...', allowed=f'at most {LONGEST:,} characters')
  try:
    parts = urllib.parse.urlsplit(urllib.parse.urljoin(base or url, url.strip()))
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
      raise UserError(field='URL', value=shown, allowed='http://HOST/... or https://HOST/...')
    netloc = _netloc(scheme, parts.hostname, parts.port)
    path = urllib.parse.quote(_without_dots(parts.path or '/'), safe="/%:=&~+!$,;'@()*")
    query = urllib.parse.quote(parts.query, safe="/%:=&~+!$,;'@()*?[]|")
  except UserError:
    raise
  except ValueError as error:  # bad brackets, ports, lone surrogates or domain names
    raise UserError(field='URL', value=shown, message=f'It cannot be read: {error}.') from None
  result = urllib.parse.urlunsplit((scheme, netloc, path, query, ''))
  if len(result) > LONGEST:
    allowed = f'at most {LONGEST:,} characters when escaped'
    raise UserError(field='URL', value=f'{shown}...', allowed=allowed)
  return result


def split_site(url: str) -> tuple[str, str]:
  """Returns the site of a normalised URL, 'http://host:port', and its '/path?query'."""
  parts = urllib.parse.urlsplit(url)
  site = f'{parts.scheme}://{parts.netloc}'
  return site, url[len(site) :]


def host(url: str) -> str:
  """Returns the host of a normalised URL, without its port."""
  return urllib.parse.urlsplit(url).hostname or ''


def page_id(url: str) -> str:
  """Returns the identity of a page within a crawl: its normalised URL without the port."""
  parts = urllib.parse.urlsplit(url)
  return f'{parts.scheme}://{parts.hostname}{split_site(url)[1]}'


def same_site(a: str, b: str) -> bool:
  """Returns whether two normalised URLs have the same host and port.

  The ports of an http and an https URL need not be equal.
  """
  a_parts, b_parts = urllib.parse.urlsplit(a), urllib.parse.urlsplit(b)
  same_port = a_parts.scheme != b_parts.scheme or a_parts.port == b_parts.port
  return a_parts.hostname == b_parts.hostname and same_port
