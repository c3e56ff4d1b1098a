"""The process in which programs run; `python_sandbox.Sandbox` starts it and sends them.

There are four kinds of processes, each the parent of the next:

  outer    enters namespaces (isolation.enter) and waits for the server;
  server   process 1 of a process namespace. It has imported the modules that programs use, so that
           a call costs a fork. It receives one socket for each call;
  keeper   enters the namespaces of one call, reads the program from the socket, keeps the limits
           that the kernel does not, and answers. It never runs anything of the program;
  program  process 1 of a namespace of its own, without any privilege (isolation.lock).

Only text passes between them. The end of the process before ends the one after. Like isolation.py,
this module imports the standard library only.
"""

import ast
import atexit
import builtins
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import types
from typing import Any

from data.tools import isolation

# Modules that are there before a program asks for them: those that programs often import, and those
# whose shared libraries are outside of the folders that a program sees.
_IMPORTED = """
  array bisect bz2 calendar cmath collections copy csv ctypes dataclasses datetime decimal difflib
  enum fractions functools hashlib heapq hmac inspect io itertools json lzma math numbers operator
  pickle pprint random re sqlite3 ssl statistics string struct tempfile textwrap threading time
  timeit traceback types typing unicodedata uuid zlib zoneinfo
"""
_CODE = '<code>'  # the name of a program's file in tracebacks
_MESSAGE_CHARS = 500  # of an exception that are reported
_ISOLATED = b'.'  # the first byte on the error pipe, once nothing is left to be isolated
_ERRORS = 3  # the descriptor of the error pipe in the program


def main(control: int) -> None:
  """Serves calls from a socket until its other end is closed.

  It first sends {"missing": null}, or what this machine does not permit.
  """
  connection = socket.socket(fileno=control)
  try:
    isolation.check_platform()
    own = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    sys.path[:] = [path for path in sys.path if path != own and os.path.isdir(path)]
    _import_modules()
    # A folder of packages that were installed is hidden: the standard library is what programs get.
    roots = [p for p in sys.path if not any(p.startswith(f'{other}/') for other in sys.path)]
    packages = [f'{root}/{name}' for root in roots for name in ('site-packages', 'dist-packages')]
    isolation.enter(roots, [folder for folder in packages if os.path.isdir(folder)])
    server = os.fork()
  except isolation.Unavailable as error:
    connection.sendall(json.dumps({'missing': str(error)}).encode())
    return
  if server:
    connection.close()
    os.waitpid(server, 0)
    return
  isolation.end_with_parent()
  connection.sendall(b'{"missing": null}')
  _serve(connection)


def _import_modules() -> None:
  for name in _IMPORTED.split():
    with contextlib.suppress(ImportError):  # Python may be built without some of them
      importlib.import_module(name)
  os.environ.clear()
  sys.dont_write_bytecode = True
  sys.argv, sys.orig_argv = [''], ['']
  sys.executable = sys._base_executable = ''


def _serve(connection: socket.socket) -> None:
  """Forks a keeper for each socket that arrives."""
  # Under memory pressure, programs are what the kernel ends.
  with contextlib.suppress(OSError), open('/proc/self/oom_score_adj', 'w') as file:
    file.write('1000')
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
  gc.collect()
  gc.freeze()  # so that a fork does not copy what the collector would touch
  while True:
    message, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    if not message:
      os._exit(0)
    if os.fork() == 0:
      connection.close()
      with socket.socket(fileno=descriptors[0]) as call:
        _answer(call)
      os._exit(0)
    os.close(descriptors[0])


def _answer(call: socket.socket) -> None:
  """Reads {"code", "limits"} from the socket, runs the code and writes what came of it."""
  isolation.end_with_parent()
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  request = json.loads(b''.join(iter(lambda: call.recv(1 << 16), b'')))
  try:
    isolation.enter_call(request['limits']['scratch_bytes'], request['limits']['files'])
    answer = _keep(request['code'], request['limits'])
  except isolation.Unavailable as error:
    answer = {'missing': str(error)}
  except OSError as error:  # a pipe or a process could not be made
    answer = {'missing': f'a process for the program: {error.strerror}'}
  with contextlib.suppress(OSError):  # whoever asked no longer listens
    call.sendall(json.dumps(answer).encode())


def _keep(code: str, limits: dict[str, Any]) -> dict[str, str]:
  """Runs code in a process of its own, and returns its output and what went wrong."""
  outputs, errors = os.pipe(), os.pipe()
  program = os.fork()
  if program == 0:
    _become_program(outputs[1], errors[1], code, limits)
  os.close(outputs[1])
  os.close(errors[1])
  isolated = os.read(errors[0], 1)  # the program's time begins here, not before it is isolated
  deadline = time.monotonic() + limits['wall_seconds']
  ended = os.pidfd_open(program)
  read = {outputs[0]: b'', errors[0]: b''}
  # A character takes up to four bytes.
  most = {outputs[0]: limits['output_bytes'], errors[0]: 4 * _MESSAGE_CHARS + 100}
  poll, waiting, stopped = select.poll(), {*read, ended}, ''
  for descriptor in waiting:
    poll.register(descriptor, select.POLLIN)
  while waiting and not stopped:
    ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
    if not ready:
      stopped = f'more than {limits["wall_seconds"]} s'
    for descriptor, _ in ready:
      data = os.read(descriptor, 1 << 16) if descriptor in read else b''
      if not data:  # the end of a pipe, or of the program
        poll.unregister(descriptor)
        waiting.discard(descriptor)
        continue
      read[descriptor] += data
      if len(read[descriptor]) > most[descriptor]:
        read[descriptor] = read[descriptor][: most[descriptor]]
        stopped = f'more than {limits["output_bytes"]:,} bytes of output'
  os.kill(program, signal.SIGKILL)  # with it, its process namespace ends
  _, status, usage = os.wait4(program, 0)
  error = _text(read[errors[0]])
  if isolated != _ISOLATED:
    return {'missing': error or f'a process for the program: wait status {status}'}
  return {
    'output': _text(read[outputs[0]]),
    'error': stopped or error or _ending(status, usage, limits),
  }


def _ending(status: int, usage: resource.struct_rusage, limits: dict[str, Any]) -> str:
  """Returns what a wait status says went wrong, '' for nothing."""
  if os.WIFEXITED(status):
    code = os.WEXITSTATUS(status)
    return f'exit status {code}' if code else ''
  name = signal.Signals(os.WTERMSIG(status)).name
  # The limit counts clock ticks, so that on a busy machine the time is only about the same. Another
  # cause of SIGKILL is a machine out of memory.
  if name == 'SIGKILL' and usage.ru_utime + usage.ru_stime > limits['cpu_seconds'] / 2:
    return f'more than {limits["cpu_seconds"]} s of processor time'
  return f'the program ended by {name}'


def _text(data: bytes) -> str:
  """Returns output as text, without NUL, which is no text, and without paths of this machine."""
  text = data.decode('utf-8', 'replace').replace('\0', '\N{REPLACEMENT CHARACTER}')
  for path in (os.path.dirname(os.__file__), os.path.dirname(__file__)):
    text = text.replace(path, '/python')
  return text


def _become_program(output: int, errors: int, code: str, limits: dict[str, Any]) -> None:
  """Turns this process, a copy of the keeper, into the isolated program. It does not return."""
  try:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.dup2(errors, _ERRORS)
    isolation.close_from(_ERRORS + 1)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'data']:
      del sys.modules[name]
    isolation.lock(
      {
        resource.RLIMIT_CPU: limits['cpu_seconds'],
        resource.RLIMIT_AS: limits['memory_bytes'],
        # The keeper counts in the same user namespace.
        resource.RLIMIT_NPROC: limits['threads'] + 1,
        resource.RLIMIT_NOFILE: limits['open_files'],
        resource.RLIMIT_FSIZE: limits['scratch_bytes'],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
      }
    )
  except BaseException as error:  # noqa: BLE001  whatever it is, the code must not run
    os.write(_ERRORS, f'?{error}'.encode())
    os._exit(1)
  os.write(_ERRORS, _ISOLATED)
  status = 1
  try:
    status = _run(code)
  finally:
    os._exit(status)


def _run(code: str) -> int:
  """Runs code as a notebook does, reports its exception, and returns the exit status."""
  sys.stdin = open(0, closefd=False)  # noqa: SIM115  they last as long as the process
  for name in ('stdout', 'stderr'):
    raw = open(1, 'wb', buffering=0, closefd=False)  # noqa: SIM115
    wrapped = io.TextIOWrapper(raw, 'utf-8', 'backslashreplace', write_through=True)
    setattr(sys, name, wrapped)
    setattr(sys, f'__{name}__', wrapped)
  module = types.ModuleType('__main__')
  sys.modules['__main__'] = module
  atexit._clear()  # The keeper's.
  try:
    try:
      _execute(code, module.__dict__)
    finally:
      # As the interpreter ends: it waits for threads, and calls what was registered.
      threading._shutdown()
      atexit._run_exitfuncs()
    return 0
  except SystemExit as error:
    if error.code is None or error.code == 0:
      return 0
    message = f'SystemExit: {error.code}'
  except MemoryError:
    message = 'MemoryError'
  except BaseException as error:  # noqa: BLE001  a program may raise anything
    message = _describe(error)
  os.write(_ERRORS, message[:_MESSAGE_CHARS].encode('utf-8', 'replace'))
  return 1


def _execute(code: str, names: dict[str, Any]) -> None:
  """Executes statements; if the last one is an expression, prints its value unless it is None."""
  tree = ast.parse(code, _CODE)
  last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
  exec(compile(tree, _CODE, 'exec'), names)
  if last is None:
    return
  value = eval(compile(ast.Expression(last.value), _CODE, 'eval'), names)
  if type(value) is float and value.is_integer() and abs(value) < 2**53:
    value = int(value)  # as the calculator prints it
  if value is not None:
    builtins.print(repr(value))


def _describe(error: BaseException) -> str:
  """Returns 'TYPE: MESSAGE (line N)', with the last line of the program that was reached."""
  message, line = str(error), None
  if isinstance(error, SyntaxError) and error.filename == _CODE:
    message, line = str(error.msg), error.lineno
  frame = error.__traceback__
  while frame:
    if frame.tb_frame.f_code.co_filename == _CODE:
      line = frame.tb_lineno
    frame = frame.tb_next
  text = f'{type(error).__name__}: {message}' if message else type(error).__name__
  return f'{text[: _MESSAGE_CHARS - 20]} (line {line})' if line else text
