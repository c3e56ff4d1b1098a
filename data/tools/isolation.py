"""Isolates a process: Linux namespaces, a root folder of its own, resource limits and seccomp.

Nothing here needs root. A user who is not root first gets a user namespace, in which the same calls
are allowed; root becomes the user NOBODY. All calls go to the kernel through ctypes, and each one
that fails raises `Unavailable`: there is no weaker isolation to fall back to.

It needs Linux 5.12 on x86-64. This module imports the standard library only, because the process
that it isolates must hold nothing of ours.
"""

import contextlib
import ctypes
import functools
import os
import platform
import resource
import signal
import sys
from collections.abc import Iterable, Mapping

NOBODY = 65534  # the user and group that a program runs as
_NAME = b'sandbox'  # of the machine, as programs see it
SCRATCH = '/scratch'  # the only folder that a program can write to
_STAGE = '/tmp'  # covered by a file system of our own, in our own view of the mounts
_ROOT = f'{_STAGE}/root'  # what becomes the program's root

_NEWNS, _NEWUSER, _NEWPID = 0x00020000, 0x10000000, 0x20000000
_NEWNET, _NEWIPC, _NEWUTS, _NEWCGROUP = 0x40000000, 0x08000000, 0x04000000, 0x02000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8  # the same for mount() and mount_setattr()
_BIND, _RECURSIVE, _PRIVATE, _DETACH = 0x1000, 0x4000, 0x40000, 2
_CLONE_TREE, _CLOEXEC, _AT_RECURSIVE, _AT_EMPTY_PATH, _AT_CWD = 1, 0x80000, 0x8000, 0x1000, -100
_MOVE_EMPTY_PATH = 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITIES_V3 = 0x20080522

# The system calls that Python needs to compute, to use the scratch folder and to start threads. All
# others fail with EPERM, new ones of later kernels included.
_ALLOWED = """
  read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10 munmap 11
  brk 12 rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 pread64 17 pwrite64 18 readv 19
  writev 20 access 21 pipe 22 select 23 sched_yield 24 mremap 25 madvise 28 dup 32 dup2 33
  nanosleep 35 getitimer 36 alarm 37 setitimer 38 getpid 39 sendfile 40 exit 60 uname 63 fsync 74
  fdatasync 75 truncate 76 ftruncate 77 getcwd 79 chdir 80 fchdir 81 rename 82 mkdir 83 rmdir 84
  link 86 unlink 87 symlink 88 readlink 89 chmod 90 fchmod 91 umask 95 gettimeofday 96
  getrlimit 97 getrusage 98 sysinfo 99 times 100 getuid 102 getgid 104 geteuid 107 getegid 108
  getppid 110 getpgrp 111 getgroups 115 rt_sigpending 127 sigaltstack 131 statfs 137 fstatfs 138
  gettid 186 time 201 futex 202 sched_getaffinity 204 getdents64 217 restart_syscall 219
  clock_gettime 228 clock_getres 229 clock_nanosleep 230 exit_group 231 openat 257 mkdirat 258
  newfstatat 262 unlinkat 263 renameat 264 linkat 265 symlinkat 266 readlinkat 267 fchmodat 268
  faccessat 269 pselect6 270 ppoll 271 set_robust_list 273 utimensat 280 dup3 292 pipe2 293
  renameat2 316 getrandom 318 copy_file_range 326 statx 332 rseq 334 close_range 436
  faccessat2 439
"""
# System calls that are allowed if an argument has one of these values: name and number, the
# argument's index, and the values.
_ALLOWED_IF = (
  # pthread_create's flags: a thread of this process, and no process or namespace of its own.
  ('clone', 56, 0, (0x003D0F00,)),
  # FIOCLEX, FIONCLEX, TCGETS: what Python asks of a new file.
  ('ioctl', 16, 1, (0x5451, 0x5450, 0x5401)),
  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; no locks, leases or signals.
  ('fcntl', 72, 1, (0, 1, 2, 3, 4, 1030)),
  # Signals to itself alone: it is process 1 of its namespace.
  ('tgkill', 234, 0, (1,)),
)
_PRLIMIT = 302  # reads limits, and sets them unless its third argument is 0
_CLONE3 = 435  # answered with ENOSYS, so that the C library takes clone, whose flags can be read
_X86_64 = 0xC000003E


class Unavailable(Exception):
  """This machine does not permit a step of the isolation; the text says which, and why."""


_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
  _fields_ = [
    (name, ctypes.c_uint64) for name in ('attr_set', 'attr_clr', 'propagation', 'userns_fd')
  ]


class _Instruction(ctypes.Structure):
  _fields_ = [
    ('code', ctypes.c_uint16),
    ('jt', ctypes.c_uint8),
    ('jf', ctypes.c_uint8),
    ('k', ctypes.c_uint32),
  ]


class _Program(ctypes.Structure):
  _fields_ = [('length', ctypes.c_uint16), ('filter', ctypes.POINTER(_Instruction))]


def check_platform() -> None:
  """Raises Unavailable unless this is Linux on x86-64, as 64-bit code."""
  if sys.platform != 'linux' or platform.machine() != 'x86_64' or sys.maxsize < 2**32:
    raise Unavailable(f'Linux on x86-64; this is {sys.platform} on {platform.machine()}')


def enter(folders: Iterable[str], hidden: Iterable[str]) -> None:
  """Moves this process and its children to namespaces of their own, with a root prepared.

  Afterwards this process still sees the machine's files, except what _STAGE covers. It has no
  network, and its next child is process 1 of a process namespace.

  Args:
    folders: what programs may read, at the same paths.
    hidden: folders within them that appear empty.

  Raises:
    Unavailable: a step is not permitted.
  """
  check_platform()
  _allow_list()  # is made once, for all calls
  spaces = _NEWUSER | _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS | _NEWCGROUP
  if os.geteuid() == 0:
    # Root may read what the user NOBODY may not, such as a Python in root's home. So the folders
    # are attached first.
    _unshare('a mount namespace', _NEWNS)
    _prepare_root(folders, hidden)
    with _step('becoming the user nobody'):
      os.setgroups([])
      os.setresgid(NOBODY, NOBODY, NOBODY)
      os.setresuid(NOBODY, NOBODY, NOBODY)
    _prctl('a process that can write its own map of users', _PR_SET_DUMPABLE, 1)
    _unshare_user(spaces)
  else:
    _unshare_user(spaces)
    _prepare_root(folders, hidden)
  with _step('a name of its own'):
    _check(_libc.sethostname(_NAME, len(_NAME)))


def enter_call(scratch_bytes: int, files: int) -> None:
  """Moves this process to the namespaces of one call: only `folders` and an empty scratch folder.

  Its next child is process 1 of a process namespace. The scratch folder is in memory, and ends with
  the processes that see it.

  Args:
    scratch_bytes: size of the scratch folder.
    files: the number of files and folders that it can hold.
  """
  _unshare_user(_NEWUSER | _NEWNS | _NEWPID)
  _mount('a root of its own', _ROOT, _ROOT, '', _BIND | _RECURSIVE)
  size = f'size={scratch_bytes},nr_inodes={files + 1},mode=700'
  _mount('a scratch folder', 'tmpfs', _ROOT + SCRATCH, 'tmpfs', _NOSUID | _NODEV | _NOEXEC, size)
  with _step('a root of its own'):
    os.chdir(_ROOT)
    _check(_libc.pivot_root(b'.', b'.'))  # the old root lies over the new one, until it is removed
    _check(_libc.umount2(b'.', _DETACH))
    os.chdir(SCRATCH)


def lock(limits: Mapping[int, int]) -> None:
  """Gives up every privilege of this process, sets its limits and filters its system calls.

  None of it can be undone. The process ends if its parent does.

  Args:
    limits: values of resource.RLIMIT_*, by number.
  """
  with _step('a session of its own'):
    os.setsid()  # so that signals to its process group reach nobody else
  with _step('resource limits'):
    for name, value in limits.items():
      resource.setrlimit(name, (value, value))
  capability = 0
  while _libc.prctl(_PR_CAPBSET_DROP, *_longs(capability, 0, 0, 0)) == 0:
    capability += 1
  if not capability:
    raise Unavailable('giving up capabilities')
  header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
  with _step('giving up capabilities'):
    _check(_libc.capset(header, nothing))
  end_with_parent()
  _prctl('no_new_privs', _PR_SET_NO_NEW_PRIVS, 1)
  filter_calls(_allow_list())


def close_from(first: int) -> None:
  """Closes all descriptors from a number on."""
  with _step('closing descriptors'):
    _syscall(436, first, 0x7FFFFFFF, 0)


def end_with_parent() -> None:
  """Has the kernel kill this process when its parent ends."""
  _prctl('the end with its parent', _PR_SET_PDEATHSIG, signal.SIGKILL)


def filter_calls(instructions: list[tuple[int, int, int, int]]) -> None:
  """Installs a seccomp filter, a program of (code, jump if true, jump if false, constant)."""
  program = (_Instruction * len(instructions))(*instructions)
  pointer = _Program(len(instructions), program)
  with _step('seccomp filters'):
    _check(_libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), ctypes.byref(pointer)))


def refuse(call: int, error: int) -> list[tuple[int, int, int, int]]:
  """Returns a filter that answers one system call with an error number, and allows all others."""
  return [_load(0), _equal(call, 1), _allow(), _fail(error)]


@functools.cache
def _allow_list() -> list[tuple[int, int, int, int]]:
  """Returns the filter that allows the system calls of this module's lists and no others.

  A call by the 32-bit or x32 convention has another architecture or number: the former ends the
  process, the latter fails.
  """
  numbers = [int(word) for word in _ALLOWED.split()[1::2]]
  filters = [_load(4), _equal(_X86_64, 1), (0x06, 0, 0, 0x80000000), _load(0)]  # kills the process
  for number in numbers:
    filters += [_unequal(number, 1), _allow()]
  for _, number, argument, values in _ALLOWED_IF:
    body = [_load(16 + 8 * argument)]  # the lower half of the argument
    for value in values:
      body += [_unequal(value, 1), _allow()]
    filters += [_unequal(number, len(body) + 1), *body, _fail(1)]
  # The third argument is an address, of which both halves must be 0.
  filters += [_unequal(_PRLIMIT, 6), _load(32), _unequal(0, 3), _load(36), _unequal(0, 1)]
  filters += [_allow(), _fail(1)]
  return [*filters, _unequal(_CLONE3, 1), _fail(38), _fail(1)]


def _load(offset: int) -> tuple[int, int, int, int]:
  """Loads 32 bits of seccomp_data: 0 the call's number, 4 the architecture, from 16 arguments."""
  return (0x20, 0, 0, offset)


def _equal(value: int, skip: int) -> tuple[int, int, int, int]:
  """Skips instructions if what was loaded has the value."""
  return (0x15, skip, 0, value)


def _unequal(value: int, skip: int) -> tuple[int, int, int, int]:
  """Skips instructions unless what was loaded has the value."""
  return (0x15, 0, skip, value)


def _allow() -> tuple[int, int, int, int]:
  return (0x06, 0, 0, 0x7FFF0000)


def _fail(error: int) -> tuple[int, int, int, int]:
  return (0x06, 0, 0, 0x00050000 | error)


def _unshare_user(spaces: int) -> None:
  """Moves this process to new namespaces in which it is the user NOBODY, with all capabilities."""
  user, group = os.geteuid(), os.getegid()
  _unshare('user, mount, process and network namespaces', spaces)
  with _step('a map of users'):
    for name, text in (
      ('setgroups', 'deny'),
      ('uid_map', f'{NOBODY} {user} 1'),
      ('gid_map', f'{NOBODY} {group} 1'),
    ):
      with open(f'/proc/self/{name}', 'w') as file:
        file.write(text)


def _prepare_root(folders: Iterable[str], hidden: Iterable[str]) -> None:
  """Assembles at _ROOT what a program will see, read-only."""
  _mount('private mounts', 'none', '/', '', _RECURSIVE | _PRIVATE)
  with _step('copies of mounts'):
    trees = {
      path: _syscall(428, _AT_CWD, path, _CLONE_TREE | _CLOEXEC | _AT_RECURSIVE)
      for path in (*folders, os.devnull)
    }
  for path in (_STAGE, _ROOT):
    if path == _ROOT:
      os.mkdir(path, 0o755)
    _mount('file systems in memory', 'tmpfs', path, 'tmpfs', _NOSUID | _NODEV, 'mode=755,size=1m')
  with _step('a root of its own'):
    os.mkdir(_ROOT + SCRATCH)
    for path, tree in trees.items():
      device = path == os.devnull
      if device:
        os.makedirs(os.path.dirname(_ROOT + path), exist_ok=True)
        os.close(os.open(_ROOT + path, os.O_CREAT | os.O_WRONLY, 0o644))
      else:
        os.makedirs(_ROOT + path, 0o755, exist_ok=True)
      # A device can be written on a read-only mount, and its times cannot be set.
      _set_attributes(tree, '', _NOSUID | _RDONLY | (_NOEXEC if device else _NODEV))
      _syscall(429, tree, '', _AT_CWD, _ROOT + path, _MOVE_EMPTY_PATH)
      os.close(tree)
  for path in hidden:
    _mount('file systems in memory', 'tmpfs', _ROOT + path, 'tmpfs', _RDONLY, 'size=4k')
  with _step('a root of its own'):
    _set_attributes(_AT_CWD, _ROOT, _RDONLY)


def _set_attributes(folder: int, path: str, attributes: int) -> None:
  """Sets attributes of the mount at a path; of a whole tree if the path is ''."""
  flags = 0 if path else _AT_EMPTY_PATH | _AT_RECURSIVE
  given = _MountAttributes(attr_set=attributes)
  _syscall(442, folder, path, flags, ctypes.byref(given), ctypes.sizeof(given))


def _unshare(what: str, spaces: int) -> None:
  with _step(what):
    _check(_libc.unshare(spaces))


def _mount(what: str, source: str, target: str, kind: str, flags: int, data: str = '') -> None:
  with _step(what):
    texts = (os.fsencode(text) for text in (source, target, kind))
    _check(_libc.mount(*texts, ctypes.c_ulong(flags), os.fsencode(data)))


def _prctl(what: str, option: int, value: int) -> None:
  with _step(what):
    _check(_libc.prctl(option, *_longs(value, 0, 0, 0)))


def _syscall(number: int, *args: object) -> int:
  """Makes a system call that the C library may not know; numbers from 424 on are everyone's."""
  given = [
    ctypes.c_long(a) if isinstance(a, int) else os.fsencode(a) if isinstance(a, str) else a
    for a in args
  ]
  return _check(_libc.syscall(ctypes.c_long(number), *given))


def _longs(*values: int) -> list[ctypes.c_ulong]:
  return [ctypes.c_ulong(value) for value in values]


def _check(result: int) -> int:
  if result < 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return result


@contextlib.contextmanager
def _step(what: str):
  """Names the step in which the kernel refused a call."""
  try:
    yield
  except (OSError, ValueError, AttributeError) as error:
    raise Unavailable(f'{what}: {getattr(error, "strerror", None) or error}') from error
