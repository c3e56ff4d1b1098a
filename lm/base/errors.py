"""What a user is told when something they gave us is wrong: one line, exit status 1.

Imports nothing of ours and no jax, so that `data/` and every front end can use it.
"""

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
  """A fault in what the user gave (a file, a field, a flag): says what was found and what is
  allowed.
  """


def unknown(kind: str, name: object, allowed: Iterable[object]) -> UserError:
  """An error for a name that is not one of `allowed`, with the nearest right one.

  Args:
    kind: what the name stands for, as the user knows it ('config field', 'task', 'optimizer').
    name: what was given.
    allowed: every name that would have been right.
  """
  names = [str(a) for a in allowed]
  near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
  hint = f' (did you mean {near[0]!r}?)' if near else ''
  return UserError(f'unknown {kind} {str(name)!r}{hint}; allowed: {", ".join(names)}')


# Libraries that reach buckets, whose errors of connections and refused requests are no OSErrors.
REMOTE = ('aiobotocore', 'aiohttp', 'botocore', 'gcsfs', 'google', 'requests', 's3fs')


def run(main: Callable[[], object]) -> None:
  """Calls a front end's `main`; a UserError, an OSError or an error of a bucket's library ends it as
  one line on stderr and exit status 1.

  `DEEPDIVE_TRACEBACK=1` in the environment shows the traceback instead.
  """
  try:
    main()
  except Exception as error:
    expected = isinstance(error, UserError | OSError)
    expected |= type(error).__module__.partition('.')[0] in REMOTE
    if not expected or os.environ.get('DEEPDIVE_TRACEBACK'):
      raise
    sys.exit('error: ' + ' '.join(str(error).split()))
  except KeyboardInterrupt:
    sys.exit(130)
