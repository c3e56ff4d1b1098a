"""The numbers at /metrics, for Prometheus."""

from collections.abc import Iterator, Mapping
from typing import Any

import prometheus_client
from prometheus_client import core

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Monitor:
  """Counts requests and tokens, and reads the state of the engines when it is asked.

  Attributes:
    requests: responses, by path and status.
    tokens: tokens, by model and kind: 'prompt', 'cached' (of the prompt's), 'completion'.
    cancelled: answers that were given up before their end, by model.
    seconds: time of a response, by path.
    first_token_seconds: time from a request to the first token of its answer, by model.
  """

  def __init__(self, models: Mapping[str, Any]):
    """Creates the metrics of `models`, by name (`lm.serve.service.ServedModel`)."""
    self.registry = registry = prometheus_client.CollectorRegistry()
    self.requests = prometheus_client.Counter(
      'deepdive_requests', 'Responses.', ['path', 'status'], registry=registry
    )
    self.tokens = prometheus_client.Counter(
      'deepdive_tokens', 'Tokens read and written.', ['model', 'kind'], registry=registry
    )
    self.cancelled = prometheus_client.Counter(
      'deepdive_cancelled', 'Answers given up before their end.', ['model'], registry=registry
    )
    self.seconds = prometheus_client.Histogram(
      'deepdive_request_seconds',
      'Time of a response.',
      ['path'],
      registry=registry,
      buckets=SECONDS,
    )
    self.first_token_seconds = prometheus_client.Histogram(
      'deepdive_first_token_seconds',
      'Time from a request to the first token of its answer.',
      ['model'],
      registry=registry,
      buckets=SECONDS,
    )
    registry.register(_Engines(models))

  def text(self) -> bytes:
    """Returns all metrics in Prometheus' text format."""
    return prometheus_client.generate_latest(self.registry)


class _Engines:
  """Reads how many requests each engine serves, and how many wait."""

  def __init__(self, models: Mapping[str, Any]):
    self._models = models

  def collect(self) -> Iterator[core.GaugeMetricFamily]:
    """Yields the gauges of all engines."""
    running = core.GaugeMetricFamily(
      'deepdive_running', 'Requests that have a row of the cache.', labels=['model']
    )
    waiting = core.GaugeMetricFamily(
      'deepdive_waiting', 'Requests that wait for a row.', labels=['model']
    )
    for name, model in self._models.items():
      engine = model.engine.engine
      running.add_metric([name], engine.num_running)
      waiting.add_metric([name], engine.num_waiting)
    yield running
    yield waiting
