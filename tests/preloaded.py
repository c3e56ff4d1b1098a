"""Programs that begin where their imports end: forks of a process that has imported them.

`Program(['train.py', ...], ...)` is a process as `python train.py ...` starts one, with arguments,
environment, standard streams, exit status and signals of its own. It spares the imports of jax and
of what train.py needs, which take three seconds of a core. A server, one for each process that runs
tests, is what is forked. It starts no backend of jax, and no thread but those of OpenBLAS, which
knows of forks. Hashes of strings are the same in all programs of a server.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import Mapping, Sequence
from typing import IO

# What train.py, eval.py and lm.chat import in the end, all but what reaches buckets.
IMPORTED = (
  'configs.base',
  'data.batches.readers',
  'data.tasks',
  'data.tokenizers.gguf_vocabulary',
  'data.tools.toolbox',
  'grain',
  'lm.cost.meter',
  'lm.evals',
  'lm.serve.terminal',
  'lm.stages',
  'lm.train.loop',
  'lm.weights.gguf',
  'tensorboardX',
  'train',
)
# How the names of variables begin that are read when a program starts or imports.
EARLY = ('GLIBC_', 'HOME', 'JAX_', 'LD_', 'MALLOC_', 'OPENBLAS_', 'PYTHON')
NUMBER = struct.Struct('i')


def early(environment: Mapping[str, str]) -> dict[str, str]:
  """Returns the variables that are read when a program starts or imports. All programs of a process
  have the same.
  """
  return {name: value for name, value in environment.items() if name.startswith(EARLY)}


class Program:
  """A program under way, with what tests use of `subprocess.Popen`.

  Args:
    arguments: those of python: a script, -m and a module, or -c and code, with their arguments.
    environment: all variables of the program.
    cwd: its working directory.
    streams: its standard input, output and error.
  """

  def __init__(
    self,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    cwd: pathlib.Path,
    streams: Sequence[IO],
  ):
    self.returncode = None
    self._events, told = os.pipe()  # its number comes first, its exit status at the end
    weakref.finalize(self, os.close, self._events)
    self._reading = threading.Lock()
    request = json.dumps([arguments, dict(environment), str(cwd)]).encode()
    descriptors = [stream.fileno() for stream in streams]
    socket.send_fds(_server(tuple(early(environment).items())), [request], [told, *descriptors])
    os.close(told)
    self.pid = self._read()

  def poll(self) -> int | None:
    """Returns the exit status as Popen has it, None while the program runs."""
    return self._wait(0)

  def wait(self) -> int:
    """Returns the exit status, as soon as there is one."""
    return self._wait(None)

  def send_signal(self, number: int) -> None:
    """Sends a signal to the program if it still runs."""
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    """Ends the program at once if it still runs."""
    self.send_signal(signal.SIGKILL)

  def _wait(self, seconds: float | None) -> int | None:
    if self.returncode is None and select.select([self._events], [], [], seconds)[0]:
      with self._reading:  # of several threads that wait, one reads
        if self.returncode is None:
          self.returncode = self._read()
    return self.returncode

  def _read(self) -> int:
    told = os.read(self._events, NUMBER.size)
    if not told:
      raise ChildProcessError('The server of programs has ended.')
    return NUMBER.unpack(told)[0]


@functools.cache
def _server(variables: tuple[tuple[str, str], ...]) -> socket.socket:
  """Starts a server whose variables that are read early are these; returns the channel to it."""
  ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  with theirs:
    process = subprocess.Popen(
      [sys.executable, __file__, str(theirs.fileno())],
      cwd=pathlib.Path(__file__).parent.parent,
      # No others: what modules set when they are imported may be set in this process already.
      env={'PATH': os.environ['PATH'], **dict(variables)},
      pass_fds=[theirs.fileno()],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
    )

  @atexit.register
  def end():
    ours.close()
    process.wait()

  return ours


# ---- In the server -------------------------------------------------------------------------------


def serve(channel: socket.socket, set_by_imports: Mapping[str, str]) -> list[str]:
  """Forks for each request, and tells of each program when it ends. Returns in the programs: with
  their arguments, everything else being as they should find it.

  Args:
    channel: where requests come from.
    set_by_imports: variables of the environment that modules set when they were imported, where
      they were not set before.
  """
  interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
  ended, wake = os.pipe()
  os.set_blocking(wake, False)
  signal.set_wakeup_fd(wake)
  signal.signal(signal.SIGCHLD, lambda *_: None)
  running: dict[int, int] = {}  # where the end of each program is told
  while True:
    ready, _, _ = select.select([channel, ended], [], [])
    if ended in ready:
      os.read(ended, 4096)
      for number, told in list(running.items()):
        if os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT):
          status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
          with contextlib.suppress(BrokenPipeError):  # nobody asks any more
            os.write(told, NUMBER.pack(status))
          os.close(running.pop(number))
    if channel in ready:
      request, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 4)
      if not request:
        os._exit(0)
      told, *streams = descriptors
      if number := os.fork():
        running[number] = told
        os.write(told, NUMBER.pack(number))
        for stream in streams:
          os.close(stream)
        continue
      signal.set_wakeup_fd(-1)
      signal.signal(signal.SIGCHLD, signal.SIG_DFL)
      signal.signal(signal.SIGINT, interrupt)
      channel.close()
      for descriptor in (ended, wake, told, *running.values()):
        os.close(descriptor)
      for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
      arguments, environment, cwd = json.loads(request)
      os.environ.clear()
      os.environ.update(set_by_imports | environment)
      os.chdir(cwd)
      return arguments


def begin(arguments: list[str]) -> None:
  """Runs what `python ARGUMENTS ...` runs, as `__main__`."""
  first, *rest = arguments
  sys.orig_argv = [sys.executable, *arguments]
  if first == '-c':
    code, *rest = rest
    sys.argv, sys.path[0] = ['-c', *rest], ''
    main = sys.modules['__main__'] = types.ModuleType('__main__')
    exec(compile(code, '<string>', 'exec'), main.__dict__)
  elif first == '-m':
    name, *rest = rest
    sys.argv, sys.path[0] = ['-m', *rest], os.getcwd()
    runpy.run_module(name, run_name='__main__', alter_sys=True)
  else:
    sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(first))
    runpy.run_path(first, run_name='__main__')


if __name__ == '__main__':
  sys.path[0] = os.getcwd()  # of a program, `begin` sets it
  given = dict(os.environ)
  for module in IMPORTED:
    importlib.import_module(module)
  recipes = importlib.import_module('lm.launch.recipes')
  recipes.START_METHOD = 'fork'  # jobs begin where their imports end, too
  gc.collect()
  gc.freeze()  # the collector of a program leaves alone what is shared with the server
  new = {name: value for name, value in os.environ.items() if name not in given}
  begin(serve(socket.socket(fileno=int(sys.argv[1])), new))
