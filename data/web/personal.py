"""Replaces personal data in texts and URLs: e-mail addresses and public IPv4 addresses.

The replacements are addresses that are reserved for examples.
"""

import re

from datatrove.pipeline.formatters.pii import PIIFormatter, PIIReplacer, public_ip_validator

# These are reserved for examples (RFC 2606, RFC 5737). datatrove's own replacements are not, and
# they depend on what was replaced before.
EMAIL, IP_ADDRESS = 'email@example.com', '192.0.2.1'
# Longer numbers are not addresses; datatrove's own expression matches parts of them.
_IP_ADDRESS = r'(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)'
# An e-mail address in a URL. There '@' may be percent-encoded, even twice, and '=', '&' and '/' end
# the name, which they do not in text. The name begins after an escape (%3Djane), never inside one.
_URL_EMAIL = re.compile(
  r'(?:(?<=%[0-9A-Fa-f]{2})|(?<![\w.+~%-]))[\w.+~-]+(?:%2[Bb][\w.+~-]+){0,3}'
  r'(@|%(?:25)*40)(?:[\w-]+\.)+[^\W\d_]{2,}(?![\w-])'
)
_emails = PIIFormatter(remove_ips=False, email_replacement=EMAIL)
_ip_addresses = PIIReplacer(_IP_ADDRESS, IP_ADDRESS, public_ip_validator)


def hide(text: str) -> str:
  """Returns a text with its e-mail and public IPv4 addresses replaced, also those inside URLs."""
  return hide_in_url(_emails.format(text) if '@' in text else text)


def hide_in_url(url: str) -> str:
  """Returns a URL with its addresses replaced; the rest is unchanged, and so are replacements."""
  name, _, host = EMAIL.partition('@')
  if '@' in url or '40' in url:
    url = _URL_EMAIL.sub(lambda found: name + found[1] + host, url)
  return _ip_addresses.replace(url)
