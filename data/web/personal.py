"""Personal data: e-mail addresses and public IPv4 addresses give way to reserved ones, in text and
in URLs.
"""

import re

from datatrove.pipeline.formatters.pii import PIIFormatter, PIIReplacer, public_ip_validator

# Reserved for examples: RFC 2606, RFC 5737. (datatrove's own addresses are not, and depend on what
# was replaced before.)
EMAIL, IP_ADDRESS = 'email@example.com', '192.0.2.1'
# Longer numbers are no addresses; datatrove's own expression takes parts of them.
_IP_ADDRESS = r'(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)'
# In URLs, where '@' may be percent-encoded, also twice, and '=', '&' and '/' end the name, which
# they do not in text. It begins behind an escape (%3Djane), never in one.
_URL_EMAIL = re.compile(
  r'(?:(?<=%[0-9A-Fa-f]{2})|(?<![\w.+~%-]))[\w.+~-]+(?:%2[Bb][\w.+~-]+){0,3}(@|%(?:25)*40)(?:[\w-]+\.)+[^\W\d_]{2,}(?![\w-])'
)
_emails = PIIFormatter(remove_ips=False, email_replacement=EMAIL)
_ip_addresses = PIIReplacer(_IP_ADDRESS, IP_ADDRESS, public_ip_validator)


def hide(text: str) -> str:
  """A text with reserved addresses in place of e-mail and public IPv4 addresses, those in URLs
  included.
  """
  return hide_in_url(_emails.format(text) if '@' in text else text)


def hide_in_url(url: str) -> str:
  """A URL likewise; of the rest of it nothing changes. What was hidden before stays as it is."""
  name, _, host = EMAIL.partition('@')
  url = (
    _URL_EMAIL.sub(lambda found: name + found[1] + host, url) if '@' in url or '40' in url else url
  )
  return _ip_addresses.replace(url)
