"""Programs that try to leave the sandbox, or to use more of the machine than they may.

Each is stopped in a way that the test names, and leaves no process, no file and no mount behind.
"""

import ast
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import sysconfig
import threading
import time

import pytest
from commands import ROOT

from data.tools import isolation, python_sandbox
from data.tools.python_sandbox import Limits, Result, Sandbox

# Limits of time are far above what programs need, except in tests of those limits.
LIMITS = Limits(cpu_seconds=60, wall_seconds=300, memory_bytes=256 << 20)
UP = '../' * 30
HOME = str(pathlib.Path.home())
# `call(number, ...)` makes a system call, and returns its result or the name of its error.
CALL = """
import ctypes, errno, os, signal
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
  given = [x if isinstance(x, bytes) else ctypes.c_long(x) for x in args]
  result = libc.syscall(ctypes.c_long(number), *given)
  return errno.errorcode[ctypes.get_errno()] if result < 0 else result
"""


@pytest.fixture(scope='module')
def sandbox():
  with Sandbox(LIMITS) as opened:
    yield opened


def descendants(pid):
  """{pid: state} of the processes below one."""
  parents = {}
  for stat in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):  # it ended meanwhile
      state, parent = stat.read_text().rpartition(')')[2].split()[:2]
      parents[int(stat.parent.name)] = (int(parent), state)
  found, below = {}, {pid}
  while below:
    below = {child for child, (parent, _) in parents.items() if parent in below}
    found |= {child: parents[child][1] for child in below}
  return found


def settled(condition):
  """Whether a condition comes true: processes end a moment after their last words."""
  deadline = time.monotonic() + 120
  while not (met := condition()) and time.monotonic() < deadline:
    time.sleep(0.01)
  return met


def gone(processes):
  return settled(lambda: not [p for p in processes if pathlib.Path(f'/proc/{p}').exists()])


@pytest.fixture(autouse=True)
def nothing_is_left(sandbox):
  """Only the server is left of the sandbox, and nothing new in the machine's mounts and folders."""
  mounts = pathlib.Path('/proc/self/mounts').read_text()
  yield

  def only_the_server():
    below = descendants(sandbox._process.pid)
    return len(below) == 1 and 'Z' not in below.values()

  assert settled(only_the_server), descendants(sandbox._process.pid)
  assert pathlib.Path('/proc/self/mounts').read_text() == mounts
  assert not pathlib.Path(isolation.SCRATCH).exists()


# ---- What a program returns ----------------------------------------------------------------------

PROGRAMS = [
  ('1 + 1', '2\n', ''),
  ('print("a")\nx = 3\nx * 2', 'a\n6\n', ''),
  ('6 / 2', '3\n', ''),
  ('7 / 2', '3.5\n', ''),
  ('-0.0', '0\n', ''),
  ('1e300 * 10', '1e+301\n', ''),
  ('"text"', "'text'\n", ''),
  ('None', '', ''),
  ('x = 5', '', ''),
  ('', '', ''),
  ('def f(n):\n  return n * f(n - 1) if n else 1\nf(25)', '15511210043330985984000000\n', ''),
  ('import math, json\nprint(json.dumps([math.pi]))', '[3.141592653589793]\n', ''),
  ('import sys\nprint("é ☃")\nsys.stderr.write("warn\\n")\nNone', 'é ☃\nwarn\n', ''),
  ('raise SystemExit', '', ''),
  ('import sys\nsys.exit("stop")', '', 'SystemExit: stop'),
  ('a = 1\n\n1 / 0', '', 'ZeroDivisionError: division by zero (line 3)'),
  ('print("so far")\n{}["k"]', 'so far\n', "KeyError: 'k' (line 2)"),
  ('raise KeyboardInterrupt', '', 'KeyboardInterrupt (line 1)'),
  ('x = = 1', '', 'SyntaxError: invalid syntax (line 1)'),
  ('import numpy', '', "ModuleNotFoundError: No module named 'numpy' (line 1)"),
  ('input()', '', 'EOFError: EOF when reading a line (line 1)'),
  (
    'import threading\nt = threading.Thread(target=print, args=(5,))\nt.start()\nt.join()',
    '5\n',
    '',
  ),
  (
    'import os\nwith open("a", "w") as f:\n  f.write("kept")\nprint(open("a").read(), os.listdir())',
    "kept ['a']\n",
    '',
  ),
  (
    'import tempfile\nwith tempfile.TemporaryDirectory() as d:\n  print(d.startswith("/scratch"))',
    'True\n',
    '',
  ),
  (
    'import signal, time\nsignal.signal(signal.SIGALRM, lambda *_: print("rang"))\n'
    'signal.setitimer(signal.ITIMER_REAL, 0.01)\nfor _ in range(100):\n  time.sleep(0.01)',
    'rang\n',
    '',
  ),
  ('import pickle\nclass A:\n  x = 1\npickle.loads(pickle.dumps(A())).x', '1\n', ''),
  (
    'import sqlite3\nsqlite3.connect(":memory:").execute("select 6 * 7").fetchone()',
    '(42,)\n',
    '',
  ),
]


@pytest.mark.parametrize('code, output, error', PROGRAMS)
def test_programs_return_what_they_print_and_their_last_value(sandbox, code, output, error):
  assert sandbox.run(code) == Result(output, error)


@pytest.mark.parametrize(
  'code',
  [
    'from math import nothing',
    'import json\njson.__file__',
    'import traceback\ntry:\n  1 / 0\nexcept ArithmeticError:\n  traceback.print_exc()',
    'import sys, traceback\ntraceback.print_stack(sys._getframe())',
    'async def f(): pass\nf()\nprint("end")',
    'import sys\nprint(sys.executable, sys.argv, sys.orig_argv, sys.path)',
  ],
)
def test_no_path_of_this_machine_is_in_the_text(sandbox, code):
  text = sandbox.run(code).text
  paths = [sysconfig.get_path('stdlib'), str(ROOT), HOME]
  assert text and not [path for path in paths if path in text], text


def test_the_text_has_the_output_and_below_it_the_error():
  assert Result('a\nb\n', '').text == 'a\nb'
  assert Result('', 'E: m').text == 'error: E: m'
  assert Result('a\n', 'E: m').text == 'a\nerror: E: m'
  assert Result('', '').text == ''


def test_the_same_program_prints_the_same_in_another_sandbox(sandbox):
  code = 'print({str(i) for i in range(30)}, hash("a"))'
  with Sandbox(LIMITS) as other:
    assert other.run(code) == sandbox.run(code)


# ---- Escapes -------------------------------------------------------------------------------------

NOT_FOUND, REFUSED, READ_ONLY = 'FileNotFoundError', 'PermissionError', 'Read-only file system'
FAMILIES = {
  'TCP': 'socket.AF_INET, socket.SOCK_STREAM',
  'TCP over IPv6': 'socket.AF_INET6, socket.SOCK_STREAM',
  'UDP': 'socket.AF_INET, socket.SOCK_DGRAM',
  'raw': 'socket.AF_INET, socket.SOCK_RAW, 1',
  'UNIX': 'socket.AF_UNIX',
  'netlink': 'socket.AF_NETLINK, socket.SOCK_RAW',
  'packet': 'socket.AF_PACKET, socket.SOCK_RAW',
  'vsock': '40, socket.SOCK_STREAM',
  'crypto': 'socket.AF_ALG, socket.SOCK_SEQPACKET',
}
# name: a program, and a pattern of the text that comes back.
ESCAPES = {
  # Files
  '/etc/passwd': ('open("/etc/passwd").read()', NOT_FOUND),
  'the parent environment': ('import os\nopen(f"/proc/{os.getppid()}/environ")', NOT_FOUND),
  'its environment in /proc': ('open("/proc/self/environ").read()', NOT_FOUND),
  '/proc/self/root': ('open("/proc/self/root/etc/passwd").read()', NOT_FOUND),
  '/proc/self/fd': ('import os\nos.listdir("/proc/self/fd")', NOT_FOUND),
  '/proc/1': ('import os\nos.listdir("/proc/1/root")', NOT_FOUND),
  '/sys': ('import os\nos.listdir("/sys")', NOT_FOUND),
  '/dev/mem': ('open("/dev/mem", "rb").read(1)', NOT_FOUND),
  '/dev/shm': ('open("/dev/shm/x", "w")', NOT_FOUND),
  '/tmp': ('open("/tmp/x", "w")', NOT_FOUND),
  'this repository': (f'open({str(ROOT / "pyproject.toml")!r})', NOT_FOUND),
  'the home folder': (f'import os\nos.listdir("{HOME}/.cache")', NOT_FOUND),
  'up by ..': (f'open("{UP}etc/passwd")', NOT_FOUND),
  'up by .. from a descriptor': (
    f'import os\nfd = os.open("/", 0)\nos.open("{UP}etc/passwd", 0, dir_fd=fd)',
    NOT_FOUND,
  ),
  'a symbolic link': ('import os\nos.symlink("/etc/passwd", "a")\nopen("a")', NOT_FOUND),
  'a hard link': ('import os\nos.link(os.__file__, "a")', 'ross-device|Read-only'),
  'a new file in sys.path': ('import os\nopen(os.__file__ + "x", "w")', READ_ONLY),
  'a changed standard library': ('import os\nopen(os.__file__, "a")', f'{READ_ONLY}|{REFUSED}'),
  'a moved standard library': (
    'import os\nos.rename(os.__file__, os.__file__ + "x")',
    f'{READ_ONLY}|{REFUSED}',
  ),
  'a file at the root': ('open("/x", "w")', READ_ONLY),
  'installed packages': (
    'import os\np = os.path.dirname(os.__file__) + "/site-packages"\n'
    'os.listdir(p) if os.path.exists(p) else []',
    r'^\[\]$',
  ),
  'removal of the scratch folder': ('import os\nos.rmdir("/scratch")', 'OSError|PermissionError'),
  'a scratch folder that nobody may delete': (
    'import os\nos.mkdir("d")\nopen("d/f", "w")\nos.chmod("d", 0)\nos.chmod("/scratch", 0)\n'
    'os.listdir("/scratch")',
    REFUSED,
  ),
  'a program of its own': (
    'import os\nopen("x", "w").write("#!/bin/sh\\n")\nos.chmod("x", 0o755)\nos.execv("./x", ["x"])',
    REFUSED,
  ),
  'a set-user-id program': (
    'import os\nopen("s", "w")\nos.chmod("s", 0o4755)\nos.execv("s", ["s"])',
    REFUSED,
  ),
  'the times of the null device': ('import os\nos.utime("/dev/null")', READ_ONLY),
  'a device': ('import os\nos.mknod("m", 0o20666, os.makedev(1, 1))', REFUSED),
  'another owner': ('import os\nopen("x", "w")\nos.chown("x", 0, 0)', REFUSED),
  'chroot': ('import os\nos.chroot(".")', REFUSED),
  'locks': ('import fcntl\nfcntl.lockf(open("x", "w"), fcntl.LOCK_EX)', REFUSED),
  'attributes': ('import os\nopen("x", "w")\nos.setxattr("x", "user.a", b"1")', REFUSED),
  # Network
  **{
    f'a socket, {name}': (f'import socket\nsocket.socket({args})', REFUSED)
    for name, args in FAMILIES.items()
  },
  'an abstract socket': ('import socket\nsocket.socket(1).connect("\\0x")', REFUSED),
  'a pair of sockets': ('import socket\nsocket.socketpair()', REFUSED),
  'HTTP': (
    'import urllib.request\nurllib.request.urlopen("http://127.0.0.1:80", timeout=5)',
    'URLError|PermissionError|LookupError',
  ),
  # Processes
  'fork': ('import os\nos.fork()', REFUSED),
  'a fork bomb': ('import os\nwhile True:\n  os.fork()', REFUSED),
  'a double fork': ('import os\nif os.fork() == 0:\n  os.setsid()\n  os.fork()', REFUSED),
  'a shell': ('import os\nos.execv("/bin/sh", ["sh", "-c", "echo out"])', REFUSED),
  # The status of a shell that did not start, 127.
  'os.system': ('import os\nos.system("echo out")', '^(-1|32512)$'),
  'subprocess': ('import subprocess\nsubprocess.run(["/bin/sh", "-c", "echo out"])', REFUSED),
  'posix_spawn': ('import os\nos.posix_spawn("/bin/sh", ["sh"], {})', REFUSED),
  'multiprocessing': (
    'import multiprocessing as m\nm.get_context("fork").Process(target=print).start()',
    REFUSED,
  ),
  'sudo': ('import os\nos.execv("/usr/bin/sudo", ["sudo", "id"])', REFUSED),
  'root': ('import os\nos.setuid(0)', REFUSED),
  'vfork': (CALL + 'call(58)', 'EPERM'),
  'clone of a process': (CALL + 'call(56, signal.SIGCHLD, 0, 0, 0, 0)', 'EPERM'),
  'clone of a namespace': (CALL + 'call(56, 0x103d0f00, 0, 0, 0, 0)', 'EPERM'),
  'clone3': (CALL + 'call(435, 0, 0)', 'ENOSYS'),
  'a program in memory': ('import os\nos.memfd_create("x")', REFUSED),
  # Signals
  'a signal to the parent': ('import os\nos.kill(os.getppid(), 9)', REFUSED),
  'a signal to everyone': ('import os\nos.kill(-1, 9)', REFUSED),
  'a signal to its group': ('import os\nos.killpg(0, 9)', REFUSED),
  'a signal to a thread of another process': (CALL + 'call(234, 2, 2, 9)', 'EPERM'),
  'the number of the parent': ('import os\nos.getppid(), os.getpid()', r'^\(0, 1\)$'),
  'SIGSTOP to itself': ('import signal\nsignal.raise_signal(19)\nprint("went on")', '^went on$'),
  'SIGKILL to itself': ('import signal\nsignal.raise_signal(9)\nprint("went on")', '^went on$'),
  # The machine
  'a higher limit': (
    'import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))',
    'ValueError|PermissionError',
  ),
  'priority': ('import os\nos.nice(5)', REFUSED),
  'processors': ('import os\nos.sched_setaffinity(0, {0})', REFUSED),
  'the clock': ('import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)', REFUSED),
  'the name of the host': ('import os\nos.uname().nodename', "^'sandbox'$"),
  'another name for the host': ('import socket\nsocket.sethostname("x")', REFUSED),
  'input for a terminal': ('import fcntl\nfcntl.ioctl(0, 0x5412, b"x")', REFUSED),
  'the 32-bit system calls': (
    CALL + 'import mmap\n'
    'code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret\n'
    'm = mmap.mmap(-1, 4096, prot=7)\nm.write(code)\n'
    'f = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n'
    'print(f())',
    '^error: the program ended by SIG(SYS|SEGV)$',
  ),
  'the x32 system calls': (CALL + 'call(0x40000000 + 41, 2, 1, 0)', 'EPERM|ENOSYS'),
  # The runner
  'sockets in frames of the runner': (
    'import gc, socket\nsockets = [o for o in gc.get_objects() if isinstance(o, socket.socket)]\n'
    'import sys\nf = sys._getframe()\nwhile f:\n  sockets += [\n'
    '    v for v in [*f.f_locals.values(), *f.f_globals.values()] if isinstance(v, socket.socket)\n'
    '  ]\n  f = f.f_back\nprint(len(sockets) > 0)\n'
    'for s in sockets:\n  try:\n    print(s.send(b"forged"))\n  except OSError as e:\n    pass',
    '^True$',
  ),
  'sys.settrace in the runner': (
    'import sys\ndef trace(frame, *_):\n  frame.f_globals["_describe"] = None\n  return trace\n'
    'sys.settrace(trace)\nf = sys._getframe()\nwhile f:\n  f.f_trace = trace\n  f = f.f_back\n'
    'print("inside")',
    '^inside',
  ),
  'another os._exit': ('import os\nos._exit = print\nprint("inside")', '^inside'),
  'a pickle that runs a command': (
    'import os, pickle\nclass A:\n  def __reduce__(self):\n    return os.system, ("echo out",)\n'
    'pickle.loads(pickle.dumps(A()))',
    '^(-1|32512)$',
  ),
  'an answer in the form of the runner': ('print(\'{"missing": "x"}\')', r'^\{"missing": "x"\}$'),
  'a forged error': ('import os\nn = os.write(3, b"Forged: x")', '^error: Forged: x$'),
  'a forged refusal': ('import os\nn = os.write(3, b"?x")\nprint("here")', r'^here\nerror: \?x$'),
  'a hostile exception': (
    'class E(Exception):\n  def __str__(self):\n    raise KeyError\nraise E',
    '^error: exit status 1$',
  ),
  'a hostile value': (
    'class V:\n  def __repr__(self):\n    raise ValueError("no")\nV()',
    'ValueError: no',
  ),
  'no modules': ('import sys\nsys.modules.clear()\nprint("end")', '^end'),
  # Output
  'NUL and invalid UTF-8': (
    'import os\nn = os.write(1, bytes([97, 0, 98, 255, 254, 10]))',
    '^a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}{2}$',
  ),
  'half of a surrogate pair': ('print(chr(0xd800))', r'^\\ud800$'),
  'no stdout': ('import os\nos.close(1)\nos.close(2)\nopen("f", "w")\nx = 1', '^$'),
  'no descriptors': ('import os\nos.closerange(0, 100)\nx = 1', '^$'),
  'os._exit': ('import os\nprint("said")\nos._exit(3)', '^said\nerror: exit status 3$'),
  'abort': ('import os\nos.abort()', '^error: the program ended by SIG(ABRT|SEGV)$'),
  'a null pointer': ('import ctypes\nctypes.string_at(0)', '^error: the program ended by SIGSEGV$'),
}


@pytest.mark.parametrize('name', ESCAPES)
def test_escapes_are_stopped(sandbox, name):
  code, expected = ESCAPES[name]
  text = sandbox.run(code).text
  assert re.search(expected, text), text
  assert 'root:x' not in text


# Calls with which programs have left sandboxes, or which change the machine: x86-64's numbers.
CALLS = {
  'acct': 163, 'add_key': 248, 'adjtimex': 159, 'bind': 49, 'bpf': 321, 'capset': 126,
  'chroot': 161, 'clock_adjtime': 305, 'clock_settime': 227, 'connect': 42, 'delete_module': 176,
  'execve': 59, 'execveat': 322, 'fanotify_init': 300, 'finit_module': 313, 'fork': 57,
  'fsopen': 430, 'init_module': 175, 'inotify_init': 253, 'io_setup': 206, 'io_uring_enter': 426,
  'io_uring_setup': 425, 'ioperm': 173, 'iopl': 172, 'kcmp': 312, 'kexec_load': 246,
  'keyctl': 250, 'kill': 62, 'landlock_create_ruleset': 444, 'mbind': 237, 'memfd_create': 319,
  'memfd_secret': 447, 'mknod': 133, 'mlock': 149, 'mlockall': 151, 'mount': 165,
  'mount_setattr': 442, 'move_mount': 429, 'move_pages': 279, 'mq_open': 240, 'msgget': 68,
  'name_to_handle_at': 303, 'open_by_handle_at': 304, 'open_tree': 428, 'perf_event_open': 298,
  'personality': 135, 'pidfd_getfd': 438, 'pidfd_open': 434, 'pidfd_send_signal': 424,
  'pivot_root': 155, 'prctl': 157, 'process_madvise': 440, 'process_vm_readv': 310,
  'process_vm_writev': 311, 'ptrace': 101, 'quotactl': 179, 'reboot': 169, 'request_key': 249,
  'rt_sigqueueinfo': 129, 'sched_setaffinity': 203, 'sched_setscheduler': 144, 'seccomp': 317,
  'semget': 64, 'sendto': 44, 'sethostname': 170, 'setns': 308, 'setpgid': 109,
  'setpriority': 141, 'setresuid': 117, 'setrlimit': 160, 'setsid': 112, 'settimeofday': 164,
  'setuid': 105, 'shmget': 29, 'signalfd': 282, 'socket': 41, 'socketpair': 53, 'splice': 275,
  'swapon': 167, 'syslog': 103, 'tee': 276, 'timer_create': 222, 'timerfd_create': 283,
  'tkill': 200, 'umount2': 166, 'unshare': 272, 'uselib': 134, 'userfaultfd': 323,
  'vhangup': 153, 'vmsplice': 278,
}  # fmt: skip


def test_dangerous_system_calls_are_refused(sandbox):
  code = f'{CALL}\n{{name: call(number, 0, 0, 0, 0, 0, 0) for name, number in {CALLS}.items()}}'
  answer = sandbox.run(code, dataclasses.replace(LIMITS, output_bytes=100_000))
  assert answer.error == '' and len(CALLS) > 80
  assert {
    name: error for name, error in ast.literal_eval(answer.output).items() if error != 'EPERM'
  } == {}


def test_limits_can_be_read_and_not_set(sandbox):
  new = 'new = (ctypes.c_ulong * 2)(1, 1)\ncall(302, 0, 7, ctypes.addressof(new), 0)'
  assert sandbox.run(f'{CALL}\n{new}').output == "'EPERM'\n"
  old = 'old = (ctypes.c_ulong * 2)()\ncall(302, 0, 7, 0, ctypes.addressof(old)), list(old)'
  assert sandbox.run(f'{CALL}\n{old}').output == '(0, [64, 64])\n'


@pytest.mark.parametrize('address', [1 << 32, 1, 0x7000_0000_0000])
def test_an_address_of_which_one_half_is_0_is_no_null(sandbox, address):
  """The filter reads arguments in halves; a limit at such an address could be set."""
  assert sandbox.run(f'{CALL}\ncall(302, 0, 7, {address}, 0)').output == "'EPERM'\n"


# ---- Nothing comes from outside but the program --------------------------------------------------


def test_a_program_sees_no_environment(monkeypatch):
  monkeypatch.setenv('SECRET', 'hunter2')
  with Sandbox(LIMITS) as opened:
    code = 'import ctypes, os\nctypes.CDLL(None).getenv(b"SECRET"), dict(os.environ)'
    assert opened.run(code).output == '(0, {})\n'


def test_a_program_has_no_descriptor_of_the_parents(tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('hunter2')
  with open(secret) as file:
    os.set_inheritable(file.fileno(), True)
    with Sandbox(LIMITS) as opened:
      found = opened.run(
        'import os\nfound = []\nfor fd in range(2000):\n  try:\n    os.fstat(fd)\n'
        '    found.append(fd)\n  except OSError:\n    pass\nfound'
      )
      assert found.output == '[0, 1, 2, 3]\n'  # 3 is the pipe for its error
      assert opened.run(f'open({str(secret)!r}).read()').error.startswith(NOT_FOUND)


def test_a_program_sees_the_standard_library_and_its_scratch_folder_alone(sandbox):
  code = (
    'import os\nfound = []\nfor folder, folders, files in os.walk("/"):\n'
    '  if folder == os.path.dirname(os.__file__):\n    folders.clear()\n    continue\n'
    '  found += [os.path.join(folder, name) for name in files]\nfound'
  )
  assert sandbox.run(code).output == "['/dev/null']\n"


def test_a_program_is_nobody_without_capabilities(sandbox):
  ids = 'print(os.getuid(), os.geteuid(), os.getgid(), set(os.getgroups()) <= {65534})'
  assert sandbox.run(f'import os\n{ids}').output == '65534 65534 65534 True\n'
  # A capability would allow both: to read a file that nobody may, and to chroot or mount.
  code = 'import os\nopen("x", "w")\nos.chmod("x", 0)\nopen("x")'
  assert sandbox.run(code).error.startswith(REFUSED)


def test_nothing_passes_from_one_call_to_the_next(sandbox):
  leave = (
    'import os, sys, math, builtins\nopen("left", "w").write("x")\nos.environ["LEFT"] = "1"\n'
    'math.left = builtins.left = 1\nsys.path.append("/left")\nsys.modules["left"] = math'
  )
  look = (
    'import os, sys, math, builtins\nos.listdir("."), dict(os.environ), hasattr(math, "left"), '
    'hasattr(builtins, "left"), "/left" in sys.path, "left" in sys.modules'
  )
  assert sandbox.run(leave) == Result('', '')
  assert sandbox.run(look).output == '([], {}, False, False, False, False)\n'


def test_random_numbers_of_two_calls_differ(sandbox):
  code = 'import os, random, uuid\nrandom.random(), os.urandom(8), uuid.uuid4()'
  first, second = (eval(sandbox.run(code).output, {'UUID': str}) for _ in range(2))
  assert not set(first) & set(second)


def test_a_program_ends_as_with_an_interpreter_of_its_own(sandbox):
  """It waits for threads that are no daemons, and calls what atexit has."""
  code = (
    'import atexit, concurrent.futures, threading, time\natexit.register(print, "at the end")\n'
    'def stay():\n  while True:\n    time.sleep(1)\n'
    'threading.Thread(target=stay, daemon=True).start()\n'
    'pool = concurrent.futures.ThreadPoolExecutor(1)\n'
    'pool.submit(lambda: (time.sleep(0.1), print("in a thread")))\nprint("last statement")'
  )
  assert sandbox.run(code) == Result('last statement\nin a thread\nat the end\n', '')
  failing = sandbox.run('import atexit\natexit.register(print, "at the end")\n1 / 0')
  assert failing.output == 'at the end\n' and failing.error.startswith('ZeroDivisionError')


# ---- Limits --------------------------------------------------------------------------------------

BUSY = {
  'a loop': 'while True:\n  pass',
  'a loop that catches everything': (
    'while True:\n  try:\n    while True:\n      pass\n  except BaseException:\n    pass'
  ),
  'a loop that ignores signals': (
    'import signal\nfor s in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):\n'
    '  signal.signal(s, signal.SIG_IGN)\nwhile True:\n  pass'
  ),
  'a regular expression': 'import re\nre.match("(a*)*b", "a" * 40)',
  'a product': 'x = 9 ** (9 ** 8)',
  'a thread': (
    'import threading\ndef spin():\n  while True:\n    pass\n'
    't = threading.Thread(target=spin)\nt.start()\nt.join()'
  ),
  'an iteration in C': 'import itertools\nsum(itertools.repeat(0))',
}


@pytest.mark.slow
@pytest.mark.parametrize('name', BUSY)
def test_processor_time_is_limited(sandbox, name):
  found = sandbox.run(BUSY[name], dataclasses.replace(LIMITS, cpu_seconds=1))
  assert found == Result('', 'more than 1 s of processor time')


@pytest.mark.slow
@pytest.mark.parametrize(
  'code',
  [
    'import time\ntime.sleep(1e6)',
    'import threading\nthreading.Event().wait()',
    'import os\nr, w = os.pipe()\nos.read(r, 1)',
    'import os, time\nos.closerange(0, 10)\ntime.sleep(1e6)',
    'import signal, time\nsignal.pthread_sigmask(0, signal.valid_signals())\ntime.sleep(1e6)',
  ],
)
def test_elapsed_time_is_limited(sandbox, code):
  found = sandbox.run(code, dataclasses.replace(LIMITS, wall_seconds=2))
  assert found == Result('', 'more than 2 s')


@pytest.mark.parametrize(
  'code',
  [
    'bytearray(10 ** 10)',
    'x = []\nwhile True:\n  x.append(bytearray(1 << 20))',
    'x = "a"\nwhile True:\n  x += x',
    'import mmap\nm = [mmap.mmap(-1, 1 << 28) for _ in range(9)]',
    '[0] * 10 ** 9',
  ],
)
def test_memory_is_limited(sandbox, code):
  error = sandbox.run(code).error
  assert error.startswith('MemoryError') or 'Cannot allocate memory' in error, error


NO_SPACE, TOO_LARGE = 'OSError: [Errno 28] No space left', 'OSError: [Errno 27] File too large'
TOO_MANY = 'OSError: [Errno 24] Too many open files'


@pytest.mark.parametrize(
  'code, error',
  [
    ('with open("f", "wb") as f:\n  while True:\n    f.write(bytes(1 << 20))', 'OSError: [Errno 2'),
    ('for i in range(99):\n  open(str(i), "wb").write(bytes(1 << 20))', NO_SPACE),
    ('for i in range(99999):\n  open(str(i), "w")', NO_SPACE),
    ('import os\nfor i in range(99999):\n  os.mkdir("d")\n  os.chdir("d")', NO_SPACE),
    ('import os\nfor i in range(99999):\n  os.symlink("x" * 4000, str(i))', NO_SPACE),
    ('open("f", "wb").truncate(1 << 40)', TOO_LARGE),
    ('f = open("f", "wb")\nf.seek(1 << 40)\nf.write(b"x")\nf.flush()', TOO_LARGE),
    ('open("f", "w")\nf = [open("f") for _ in range(1000)]', TOO_MANY),
    ('import os\nf = [os.pipe() for _ in range(1000)]', TOO_MANY),
  ],
)
def test_files_are_limited(sandbox, code, error):
  assert sandbox.run(code).error.startswith(error)


def test_hard_links_do_not_escape_the_limit_of_files(sandbox):
  code = 'import os\nopen("f", "w")\nfor i in range(99999):\n  os.link("f", str(i))'
  assert sandbox.run(code).error.startswith(NO_SPACE)


def test_threads_are_limited(sandbox):
  code = (
    'import threading\nstarted, stop = [], threading.Event()\ntry:\n  while True:\n'
    '    t = threading.Thread(target=stop.wait, daemon=True)\n    t.start()\n'
    '    started.append(t)\nexcept RuntimeError as error:\n  print(len(started), error)\nstop.set()'
  )
  count, _, error = sandbox.run(code).text.partition(' ')
  assert int(count) < LIMITS.threads and error == "can't start new thread"


@pytest.mark.parametrize(
  'code',
  [
    'while True:\n  print("x" * 1000)',
    'import sys\nwhile True:\n  sys.stderr.write("x" * 1000)',
    'import os\nwhile True:\n  os.write(1, bytes([120]) * 100_000)',
    '"x" * 10_000_000',
  ],
)
def test_output_is_cut_and_ends_the_program(sandbox, code):
  found = sandbox.run(code)
  assert found.error == 'more than 4,000 bytes of output'
  assert len(found.output) == 4_000 and set(found.output) <= set("x\n'")


def test_as_much_output_as_is_allowed_is_returned_whole(sandbox):
  assert sandbox.run('print("x" * 3999)') == Result('x' * 3999 + '\n', '')


@pytest.mark.parametrize(
  'code, error',
  [
    ('def f():\n  f()\nf()', 'RecursionError: maximum recursion depth exceeded'),
    ('2 ** 100_000', 'ValueError: Exceeds the limit (4300 digits) for integer string conversion'),
    ('x' * 100_001, 'longer than 100,000 characters'),
    ('(' * 90_000 + ')' * 90, 'SyntaxError: too many nested parentheses (line 1)'),
    ('raise ValueError("x" * 10 ** 6)', 'ValueError: xxx'),
  ],
)
def test_what_is_too_much_for_python_is_an_error(sandbox, code, error):
  found = sandbox.run(code)
  assert found.output == '' and found.error.startswith(error) and len(found.error) <= 500


def test_recursion_without_pythons_limit_ends_the_program_alone(sandbox):
  code = (
    'import sys\nsys.setrecursionlimit(10 ** 9)\nx = []\n'
    'for _ in range(10 ** 5):\n  x = [x]\nrepr(x) and None'
  )
  error = sandbox.run(code).error
  assert re.search('SIGSEGV|RecursionError|MemoryError', error), error
  assert sandbox.run('1 + 1') == Result('2\n', '')


# ---- The sandbox itself --------------------------------------------------------------------------


def test_programs_of_several_threads_run_at_the_same_time(sandbox):
  results = {}

  def run(i):
    results[i] = sandbox.run(f'with open("f", "w") as f:\n  f.write("{i}")\nopen("f").read()')

  threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert results == {i: Result(f"'{i}'\n", '') for i in range(8)}


def test_closing_a_sandbox_ends_all_of_its_processes():
  opened = Sandbox(LIMITS)

  def wait():
    with contextlib.suppress(RuntimeError):  # it is closed before there is an answer
      opened.run('import time\ntime.sleep(1e6)')

  caller = threading.Thread(target=wait)
  caller.start()
  # The server, the keeper and the program.
  assert settled(lambda: len(descendants(opened._process.pid)) == 3)
  processes = [opened._process.pid, *descendants(opened._process.pid)]
  opened.close()
  caller.join()
  assert gone(processes)
  with pytest.raises(RuntimeError, match='closed'):
    opened.run('1')


def test_a_sandbox_whose_server_was_killed_starts_another():
  with Sandbox(LIMITS) as opened:
    assert settled(
      lambda: len(descendants(opened._process.pid)) == 1
    )  # the first program has ended
    (server,) = descendants(opened._process.pid)
    os.kill(server, signal.SIGKILL)
    assert opened.run('2 + 2') == Result('4\n', '')


def python(code, *args):
  """A process with this repository in its path."""
  return subprocess.Popen(
    [sys.executable, '-c', code, *map(str, args)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
  )


def printed(code, *args):
  with python(code, *args) as process:
    out, err = process.communicate()
  assert process.returncode == 0, err
  return out


def test_a_killed_parent_leaves_no_process():
  code = (
    'import threading, time\nfrom data.tools.python_sandbox import Sandbox\ns = Sandbox()\n'
    'threading.Thread(target=s.run, args=("import time; time.sleep(1e6)",)).start()\n'
    'print(s._process.pid, flush=True)\ntime.sleep(1e6)'
  )
  with python(code) as parent:
    outer = int(parent.stdout.readline())
    assert settled(lambda: len(descendants(outer)) == 3)
    processes = [outer, *descendants(outer)]
    parent.kill()
  assert gone(processes)


def test_a_forked_process_cannot_use_its_parents():
  code = (
    'import os\nfrom data.tools.python_sandbox import Sandbox\ns = Sandbox()\npid = os.fork()\n'
    'try:\n  print(os.getpid() == s._owner, s.run("1 + 1").text, flush=True)\n'
    'except RuntimeError as error:\n  print(error, flush=True)\nif pid:\n  os.wait()\n'
    '  print(s.run("2 + 2").text)'
  )
  assert sorted(printed(code).splitlines()) == [
    '4',
    'True 2',
    'the Python sandbox belongs to the process that made it',
  ]


# ---- It refuses where it cannot isolate ----------------------------------------------------------

ASK = """
from data.tools.python_sandbox import Sandbox
from lm.base.errors import UserError
try:
  print('ran', Sandbox().run('1 + 1'))
except UserError as error:
  print(error.field, error.value, error)
"""
# A machine that does not permit a system call, by a filter like those of containers.
FILTER = """
import sys
from data.tools import isolation
isolation._prctl('', isolation._PR_SET_NO_NEW_PRIVS, 1)
isolation.filter_calls(isolation.refuse(int(sys.argv[1]), 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
  'number, what',
  [
    (272, 'namespace'),  # unshare
    (165, 'mounts'),  # mount
    (428, 'copies of mounts'),  # open_tree
    (429, 'a root of its own'),  # move_mount
    (442, 'a root of its own'),  # mount_setattr
    (155, 'a root of its own'),  # pivot_root
    (166, 'a root of its own'),  # umount2
    (112, 'a session of its own'),  # setsid
    (126, 'giving up capabilities'),  # capset
    (170, 'a name of its own'),  # sethostname
    (436, 'closing descriptors'),  # close_range
  ],
)
def test_a_machine_that_does_not_permit_a_step_runs_no_program(number, what):
  text = printed(FILTER + ASK, number)
  assert text.startswith('tool python '), text
  assert re.search(f'it lacks [^:]*{what}[^:]*: Operation not permitted', text), text


def test_a_machine_without_seccomp_runs_no_program():
  """prctl is refused for that option alone: the others are still needed."""
  code = FILTER[: FILTER.index('isolation.filter_calls')] + (
    'isolation.filter_calls([(0x20, 0, 0, 0), (0x15, 0, 3, 157), (0x20, 0, 0, 16), '
    '(0x15, 0, 1, 22), (6, 0, 0, 0x50016), (6, 0, 0, 0x7FFF0000)])'
  )
  assert 'it lacks seccomp filters: Invalid argument' in printed(code + ASK)


def test_a_machine_without_user_namespaces_runs_no_program():
  """As where an administrator set the number of namespaces that may be made to 0."""
  code = (
    'from data.tools import isolation\nisolation._unshare_user(isolation._NEWUSER)\n'
    'with open("/proc/sys/user/max_user_namespaces", "w") as f:\n  f.write("0")\n'
  )
  text = printed(code + ASK)
  assert 'it lacks user, mount, process and network namespaces: No space left on device' in text


def test_another_platform_runs_no_program(monkeypatch):
  monkeypatch.setattr('platform.machine', lambda: 'riscv64')
  with pytest.raises(isolation.Unavailable, match='Linux on x86-64; this is linux on riscv64'):
    isolation.check_platform()


def test_a_refusal_names_the_tool_and_what_is_missing():
  error = python_sandbox._missing('seccomp filters: Invalid argument')
  assert (error.field, error.value) == ('tool', 'python')
  assert 'it lacks seccomp filters: Invalid argument' in str(error)


# As a user who is not root. Python and this repository may lie where only root can read: so they are
# attached at the same paths in folders of our own, which nobody else sees.
AS_USER = """
import os, sys
user, base, root = int(sys.argv[1]), sys.base_prefix, sys.argv[2]
if os.getuid() == 0:
  from data.tools import isolation as i
  i._unshare('', i._NEWNS)
  i._mount('', 'none', '/', '', i._RECURSIVE | i._PRIVATE)
  trees = {p: i._syscall(428, -100, p, i._CLONE_TREE | i._AT_RECURSIVE) for p in (base, root)}
  for top in {'/' + path.split('/')[1] for path in trees} - {'/usr', '/tmp'}:
    i._mount('', 'tmpfs', top, 'tmpfs', 0, 'mode=755')
  for path, tree in trees.items():
    os.makedirs(path, exist_ok=True)
    i._syscall(429, tree, '', -100, path, 4)
  os.setgroups([])
  os.setresgid(user, user, user)
  os.setresuid(user, user, user)
python = sys._base_executable
os.execve(python, [python, '-S', '-c', sys.argv[3]], {'PYTHONPATH': root})
"""


def test_a_user_who_is_not_root_has_the_same_sandbox():
  programs = [
    'import os\nos.getuid(), os.getpid(), os.listdir(".")',
    'open("/etc/passwd")',
    'import os\nos.fork()',
    'open("/x", "w")',
    'import socket\nsocket.socket()',
    '6 * 7',
  ]
  code = (
    'import os\nfrom data.tools.python_sandbox import Sandbox\nwith Sandbox() as s:\n'
    f'  print([os.getuid() != 0, *(s.run(code).text for code in {programs})])'
  )
  is_user, ids, *stopped, value = ast.literal_eval(printed(AS_USER, 12345, ROOT, code))
  assert (is_user, ids, value) == (True, '(65534, 1, [])', '42')
  for text, expected in zip(stopped, (NOT_FOUND, REFUSED, READ_ONLY, REFUSED), strict=True):
    assert expected in text
