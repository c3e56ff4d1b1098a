"""Predicted costs as text for people."""

from typing import Any


def with_prefix(x: float) -> str:
  """Returns a number with three digits and a metric prefix, such as '1.23 G'."""
  for power, prefix in ((15, 'P'), (12, 'T'), (9, 'G'), (6, 'M'), (3, 'k')):
    if abs(x) >= 10**power:
      return f'{x / 10**power:.3g} {prefix}'
  return f'{x:.3g} '


def summary(result: dict[str, Any]) -> str:
  """Returns a two-line summary: peak memory, FLOPs and traffic, then step time and MFU."""
  of = f' of {with_prefix(result["hbm_bytes"])}B' if result['chip'] else ''
  text = (
    f'budget of a chip: {with_prefix(result["peak_bytes"])}B{of} at the peak, '
    f'{with_prefix(result["hlo_flops"])}FLOP an update '
    f"({with_prefix(result['model_flops'])}FLOP the model's), "
    f'{with_prefix(result["collective_bytes"])}B sent'
  )
  if not result['chip']:
    return text
  low, high = result['step_seconds']
  least, most = result['mfu']
  return (
    f'{text}\n{result["chip"]}: {low:.3g} to {high:.3g} s an update, MFU {least:.0%} to {most:.0%}'
  )


def describe(result: dict[str, Any]) -> str:
  """Returns a predicted cost as a table, one line for each figure."""
  mesh = ' '.join(f'{axis}={n}' for axis, n in result['mesh'].items() if n > 1) or 'one device'
  lines = [
    f'{result["chips"]} x {result["chip"] or "a chip that is not known"}, {mesh}, '
    f'{result["parameters"]:,} parameters; '
    f'of one chip, an update of {result["tokens_per_chip"]:,.0f} tokens:'
  ]
  for name, held in result['memory'].items():
    lines.append(table_line(name, held, 'B'))
  lines.append(_peak_line(result))
  lines.append(table_line('operations of the model', result['model_flops'], 'FLOP'))
  lines.append(table_line('operations carried out', result['hlo_flops'], 'FLOP'))
  for axes, kinds in result['collectives'].items():
    for kind, sent in kinds.items():
      lines.append(table_line(f'sent along {axes}: {kind}', sent['bytes'], 'B'))
  if result['chip']:
    for name, seconds in result['seconds'].items():
      lines.append(table_line(f'time of {name}', seconds, 's'))
    low, high = result['step_seconds']
    least, most = result['mfu']
    lines.append(
      f'  an update takes {low:.3g} s (all at once) to {high:.3g} s (one after the other): '
      f'MFU {most:.1%} to {least:.1%}'
    )
  return '\n'.join([*lines, *(f'  note: {note}' for note in result['notes'])])


def table_line(name: str, value: float, unit: str, note: str = '') -> str:
  """Returns a line of `describe`."""
  return f'  {name:42} {with_prefix(value):>10}{unit} {note}'.rstrip()


def _peak_line(result: dict[str, Any]) -> str:
  """Returns the line of the phase with the most memory; it names the other phases too."""
  phases = result['phases']
  peak = max(phases, key=phases.get)
  note = ''
  if result['chip']:
    fraction = result['peak_bytes'] / result['hbm_bytes']
    note = f' {fraction:.0%} of {with_prefix(result["hbm_bytes"])}B'
    note += '' if result['fits'] else ': DOES NOT FIT'
  others = [f'{name} {with_prefix(held)}B' for name, held in phases.items() if name != peak]
  text = f'{note}; {", ".join(others)}'
  return table_line(f'all, at the peak ({peak})', result['peak_bytes'], 'B', text)
