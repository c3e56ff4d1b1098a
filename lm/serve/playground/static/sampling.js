// The fields that say how tokens are drawn, which three views have.

import { element } from './dom.js';

const FIELDS = {
  temperature: { label: 'Temperature', value: 0.8, min: 0, max: 2, step: 0.1 },
  top_p: { label: 'Top-p', value: 1, min: 0.01, max: 1, step: 0.01, neutral: 1 },
  top_k: { label: 'Top-k', value: 0, min: 0, max: 1000, step: 1, neutral: 0, hint: '0: all' },
  min_p: { label: 'Min-p', value: 0, min: 0, max: 1, step: 0.01, neutral: 0 },
  max_tokens: { label: 'Longest answer', value: 256, min: 1, max: 100000, step: 1, hint: 'tokens' },
  seed: { label: 'Seed', value: '', min: 0, max: 2147483647, step: 1, hint: 'empty: random' },
};

/**
 * Puts the fields into `node` and returns a function that reads them: the part of a request that
 * says how tokens are drawn, without what changes nothing. Fields that are empty or out of range
 * count as what they began with.
 */
export function samplingFields(node, prefix, values = {}) {
  const inputs = {};
  for (const [name, field] of Object.entries(FIELDS)) {
    const id = `${prefix}-${name}`;
    const value = values[name] ?? field.value;
    const { min, max, step } = field;
    inputs[name] = element('input', { id, type: 'number', min, max, step, value });
    const hint = field.hint ? [element('small', {}, field.hint)] : [];
    node.append(element('label', { for: id }, element('span', {}, field.label, ' ', ...hint), inputs[name]));
  }
  return () => {
    const read = {};
    for (const [name, input] of Object.entries(inputs)) {
      const usable = input.value !== '' && input.validity.valid;
      const value = usable ? input.value : input.defaultValue;
      if (value !== '' && Number(value) !== FIELDS[name].neutral) read[name] = Number(value);
    }
    return read;
  };
}

/** Returns a seed nobody chose. */
export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
