"""The engine: continues many prompts at once, which join and leave between its steps.

A request takes one row of a fixed number. `Engine.step` reads a part of the prompts that are new
and then draws a few tokens of every row that has read its prompt, so that long prompts, long
answers and calls of tools do not hold up the others. A prompt that begins as something that a row
holds, or is about to read, is not read again: the row is copied. The programs are in
lm/infer/programs.py.

What a request gets does not depend on the others: its random numbers follow from its own seed and
the position of the token, and a row computes with nothing of its neighbours. The programs have
fixed shapes for the life of an engine, so that rounding differs only with the length of the cache
and with how a prompt was cut into parts, by around 1e-6 of a logit in float32.
"""

import collections
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from lm.base.errors import UserError
from lm.infer import prefixes, programs
from lm.infer.requests import Handle, Piece, QueueFull, Request, Top
from lm.infer.sampling import RowSampling
from lm.infer.slots import Slot
from lm.model import apart
from lm.parallel import distributed

POLL_SECONDS = 0.01  # How long a step waits for tools if there is nothing else to do.


class _Waiting(NamedTuple):
  """A request that waits for a row, and the key of its prompt (`prefixes.key_of`)."""

  handle: Handle
  key: bytes


class Engine:
  """Rows of a key/value cache, and the requests that they serve or that wait for one.

  `submit` and `Handle.cancel` may be called from any thread; one thread calls `step`.
  """

  def __init__(
    self,
    config: FrozenConfigDict,
    params: Any,
    *,
    rows: int,
    capacity: int,
    steps: int = 8,
    max_waiting: int | None = None,
    reads: int | None = None,
    cache: str = 'none',
    executor: futures.Executor | None = None,
  ):
    """Creates an engine that serves nothing yet.

    Args:
      config: the model's.
      params: its parameters.
      rows: how many requests are served at once.
      capacity: the most tokens of a prompt and its answer. The cache grows with the longest row and
        shrinks again, in steps of `programs.buckets`.
      steps: how many tokens a row draws in one step at most.
      max_waiting: how many requests may wait for a row; None means no limit.
      reads: how many parts of prompts are read in a step; None reads all prompts that have a row
        before anything is drawn.
      cache: quantization of the cache, 'none' or 'int8'.
      executor: runs tools while other rows go on; None runs each when it is called for, and then
        runs of several processes stay in step with each other.

    Raises:
      UserError: the model has learned positions, and they end before `capacity`.
    """
    if config.position == 'learned' and capacity > config.max_len:
      raise UserError(
        field='context',
        value=capacity,
        allowed=f'at most max_len = {config.max_len} tokens, where the learned positions end',
      )
    self.config, self.capacity = config, capacity
    on_cpu = jax.default_backend() == 'cpu'
    self._params = apart.for_inference(params)
    self._steps, self._reads, self._executor = steps, reads, executor
    self._max_waiting = max_waiting
    self._buckets = programs.buckets(capacity)
    self._size = self._buckets[0]  # The slots that the cache has now.
    self._rows = programs.start(config, rows, self._size, cache, not on_cpu)
    self._slots = [Slot(i) for i in range(rows)]
    self._waiting: collections.deque[_Waiting] = collections.deque()
    self._changed = threading.Condition()
    self._served = 0

  def submit(self, request: Request) -> Handle:
    """Adds a request to those that wait, and returns its handle.

    Raises:
      QueueFull: too many wait already.
      UserError: the request cannot be served.
    """
    request.check(self.config.vocab_size, self.capacity)
    request.sampling.bias(self.config.vocab_size)
    handle = Handle(request)
    key = prefixes.key_of([*request.prompt, *request.forced])
    with self._changed:
      if self._max_waiting is not None and len(self._waiting) >= self._max_waiting:
        raise QueueFull(
          field='requests that wait',
          value=len(self._waiting),
          allowed=f'at most {self._max_waiting}',
        )
      self._waiting.append(_Waiting(handle, key))
      self._changed.notify()
    return handle

  @property
  def num_waiting(self) -> int:
    """Returns how many requests wait for a row."""
    return len(self._waiting)

  @property
  def num_running(self) -> int:
    """Returns how many rows serve a request."""
    return sum(not slot.is_free for slot in self._slots)

  @property
  def is_idle(self) -> bool:
    """Returns whether there is nothing to do until another request is submitted."""
    return not self._waiting and not self.num_running

  def wait_for_work(self, timeout: float) -> bool:
    """Waits until there is something to do, at most `timeout` seconds; returns whether there is."""
    with self._changed:
      return self._changed.wait_for(lambda: not self.is_idle, timeout)

  def step(self) -> None:
    """Reads parts of new prompts, then draws up to `steps` tokens of every row that is ready."""
    for slot in self._slots:
      self._look_after(slot)
    reads = 0
    self._admit()
    while reads != self._reads and self._read():
      reads += 1
      self._admit()
    if not self._decode() and not reads:
      calls = [slot.call for slot in self._slots if slot.call is not None]
      futures.wait(calls, POLL_SECONDS, futures.FIRST_COMPLETED)

  def run(self) -> None:
    """Steps until every request is answered."""
    while not self.is_idle:
      self.step()

  def forget(self) -> None:
    """Forgets what free rows hold, so that no later request finds its beginning there."""
    for slot in self._slots:
      if slot.is_free:
        slot.held = []

  def stream(self, handle: Handle) -> Iterator[Piece]:
    """Steps the engine and yields the pieces of one answer until its end.

    If the iteration is abandoned, the request is cancelled.
    """
    try:
      while not handle.done:
        self.step()
        yield from handle.ready()
      yield from handle.ready()
      handle.result()  # Raises what a tool raised.
    finally:
      if not handle.done:
        handle.cancel()
        self.step()

  # ---- Joining and leaving

  def _look_after(self, slot: Slot) -> None:
    """Ends a request that was cancelled, and goes on with one whose tool has returned."""
    if slot.is_free:
      return
    if slot.handle.cancelled:
      slot.finish('cancelled', self._served)
    elif slot.call is not None and slot.call.done():
      self._take_result(slot)

  def _admit(self) -> None:
    """Gives free rows to requests that wait, in their order, and ends those that were cancelled.

    A request whose prompt begins as one that is being read waits until that is read.
    """
    if not self._waiting:
      return
    free = [slot for slot in self._slots if slot.is_free]
    known = prefixes.Prefixes(self._slots if free else ())
    with self._changed:
      waiting = list(self._waiting)
    taken = set()
    for each in waiting:
      if each.handle.cancelled:
        each.handle.finish('cancelled')
        taken.add(each.handle)
      elif free and self._place(each, free, known):
        taken.add(each.handle)
    if taken:
      with self._changed:
        left = [each for each in self._waiting if each.handle not in taken]
        self._waiting = collections.deque(left)

  def _place(self, waiting: '_Waiting', free: list[Slot], known: prefixes.Prefixes) -> bool:
    """Gives a request the free row that suits it best; returns False if it should wait instead."""
    handle, request = waiting.handle, waiting.handle.request
    found = prefixes.Found(0, None)
    if not request.prompt_log_probs:
      found = known.find(waiting.key)
      if known.is_coming(waiting.key, found.length):
        return False
    shared, source = found.length, found.slot
    goes_on = source is not None and prefixes.can_go_on(found)
    slot = source if goes_on else min(free, key=lambda slot: slot.last_used)
    free.remove(slot)
    if shared and slot is not source:
      arguments = np.array([source.index], np.int32), np.array([slot.index], np.int32)
      self._rows = programs.copy_row(self._rows, *arguments, self._bucket(shared))
    self._served += 1
    slot.begin(handle, shared, self._served)
    V = self.config.vocab_size
    drawing = RowSampling.of([request.sampling], V).replace(
      seeds_B2=request.key_data()[None], num_top_B=np.array([request.num_top], np.int32)
    )
    drawing.seen_BV[0, [*request.prompt, *request.forced]] = True
    ends_1V = np.zeros((1, V), np.uint8)
    ends_1V[0, list(request.pause_ids)] = programs.PAUSES
    ends_1V[0, list(request.stop_ids)] = programs.STOPS
    self._rows = programs.set_row(self._rows, slot.index, shared, drawing, ends_1V)
    if not request.max_new_tokens and len(slot.pending) == 1:
      slot.finish('length', self._served)
      free.append(slot)
    known.update(slot)
    return True

  # ---- The size of the cache

  def _bucket(self, length: int) -> int:
    """Returns the least number of slots that holds `length` tokens."""
    return next(size for size in self._buckets if size >= length)

  def _make_room(self, slots: list[Slot], more: int) -> None:
    """Gives the cache room for `more` tokens of some rows, or takes away what no row needs."""
    needed = max(min(len(slot.held) + more, self.capacity) for slot in slots)
    size = self._bucket(needed)
    most = max(len(slot.held) + len(slot.pending) for slot in self._slots if not slot.is_free)
    # It shrinks late, so that rows that come and go do not make it change all the time.
    if size > self._size or 2 * self._bucket(min(most + more, self.capacity)) <= self._size:
      size = max(size, self._bucket(min(most, self.capacity)))
      if size < self._size:
        for slot in self._slots:
          del slot.held[size:]
      self._rows = programs.resize(self._rows, size)
      self._size = size

  # ---- Reading

  def _read(self) -> bool:
    """Reads the next part of the prompts of some rows; returns whether there was one."""
    slots = [slot for slot in self._slots if slot.reads(self._left_to_decode(slot))]
    if not slots:
      return False
    slots.sort(key=lambda slot: slot.order)
    scored = slots[0].handle.request.prompt_log_probs
    slots = [slot for slot in slots if slot.handle.request.prompt_log_probs == scored]
    longest = len(slots[0].pending) - 1
    chunk = next((size for size in programs.CHUNKS if size >= longest), programs.CHUNKS[-1])
    most = max(1, min(len(self._slots), programs.CHUNK_TOKENS // chunk))
    count = most if len(slots) > 1 else 1
    slots = slots[:count]
    self._make_room(slots, min(chunk, max(len(slot.pending) - 1 for slot in slots)))
    tokens_RT = np.zeros((count, chunk), np.int32)
    next_RT, num_R = np.zeros_like(tokens_RT), np.zeros(count, np.int32)
    rows_R = np.full(count, len(self._slots), np.int32)
    for i, slot in enumerate(slots):
      n = num_R[i] = min(chunk, len(slot.pending) - 1)
      rows_R[i], tokens_RT[i, :n] = slot.index, slot.pending[:n]
      next_RT[i, :n] = slot.pending[1 : n + 1]
    held = max(len(slot.held) + int(n) for slot, n in zip(slots, num_R, strict=False))
    size = min(self._bucket(held), self._size)
    arguments = self.config, self._params, self._rows, rows_R, tokens_RT, num_R
    if scored:
      self._rows, scores = programs.prefill_and_score(*arguments, next_RT, size)
      log_p_RT, ids_RTA, top_RTA = distributed.fetch(scores)
    else:
      self._rows = programs.prefill(*arguments, size)
    for i, (slot, n) in enumerate(zip(slots, num_R, strict=False)):
      slot.read(int(n))
      if scored:
        top = slot.handle.request.num_top
        slot.handle.completion.prompt_tops += _tops(log_p_RT[i], ids_RTA[i], top_RTA[i], n, top)
      if not slot.handle.request.max_new_tokens and len(slot.pending) == 1:
        slot.finish('length', self._served)
    return True

  def _left_to_decode(self, slot: Slot) -> int:
    """Returns how many tokens `decode` may read before the row draws."""
    request = slot.handle.request if slot.handle else None
    reads_all = request is not None and (request.prompt_log_probs or not request.max_new_tokens)
    return 1 if reads_all else programs.QUEUE

  # ---- Decoding

  def _decode(self) -> bool:
    """Draws the next tokens of the rows that have read all but a few; returns whether any has."""
    slots = [slot for slot in self._slots if slot.draws(self._left_to_decode(slot))]
    if not slots:
      return False
    self._make_room(slots, programs.QUEUE + self._steps)
    B = len(self._slots)
    queue_BF = np.zeros((B, programs.QUEUE), np.int32)
    num_B, budget_B = np.zeros(B, np.int32), np.zeros(B, np.int32)
    for slot in slots:
      i, n = slot.index, len(slot.pending)
      queue_BF[i, :n], num_B[i] = slot.pending, n
      budget_B[i] = min(slot.budget(self.capacity), self._steps)
    out = self._run_decode(queue_BF, num_B, budget_B)
    for slot in slots:
      i, n = slot.index, int(out.count_B[slot.index])
      tokens = out.tokens_BM[i, :n].tolist()
      tops = []
      if slot.handle.request.num_top:
        reports = out.model_log_probs_BM[i], out.top_ids_BMA[i], out.top_log_probs_BMA[i]
        tops = _tops(*reports, n, slot.handle.request.num_top)
      ended = slot.draw(tokens, out.log_probs_BM[i, :n].tolist(), tops, int(out.fed_B[i]))
      if ended:
        slot.finish('string', self._served)
      elif tokens:
        self._go_on(slot, tokens[-1])
    return True

  def _run_decode(
    self, queue_BF: np.ndarray, num_B: np.ndarray, budget_B: np.ndarray
  ) -> programs.Decoded:
    """Runs `programs.decode` on all rows and returns what they drew."""
    arguments = queue_BF, num_B, budget_B, np.bool_(bool(self._waiting))
    self._rows, out = programs.decode(
      self.config, self._steps, self._params, self._rows, *arguments
    )
    return distributed.fetch(out)

  def _go_on(self, slot: Slot, token: int) -> None:
    """Ends an answer after the token drawn last, or calls the tool that it asks for."""
    end = slot.end_after(token, self.capacity)
    if end:
      slot.finish(end, self._served)
    elif slot.wants_call(token):
      if not slot.may_call():
        slot.finish('call', self._served)
        return
      answer, tool = list(slot.handle.completion.tokens), slot.handle.request.tool
      if self._executor is not None:
        slot.call = self._executor.submit(tool, answer)
      else:
        slot.call = futures.Future()
        try:
          slot.call.set_result(tool(answer))
        except Exception as error:  # noqa: BLE001  It belongs to the request, not to the engine.
          slot.call.set_exception(error)
        self._take_result(slot)

  def _take_result(self, slot: Slot) -> None:
    """Forces the result of a call into its row."""
    call, slot.call = slot.call, None
    if (error := call.exception()) is not None:
      slot.finish('error', self._served, error)
      return
    result = call.result()
    if not result:
      slot.finish('call', self._served)
    elif len(result) >= slot.room(self.capacity):
      slot.finish('full', self._served)
    else:
      slot.force(list(result))


def _tops(
  log_p_M: np.ndarray, ids_MA: np.ndarray, top_MA: np.ndarray, count: int, alternatives: int
) -> list[Top]:
  """Returns the reports of the first `count` tokens, with so many alternatives each."""
  return [
    Top(float(log_p), ids[:alternatives].tolist(), logs[:alternatives].tolist())
    for log_p, ids, logs in zip(log_p_M[:count], ids_MA[:count], top_MA[:count], strict=True)
  ]
