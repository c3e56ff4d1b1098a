// The view Tokens: a text in coloured pieces, for each tokenizer, and how merges make them.

import { request } from './api.js';
import { byId, element, toolbar } from './dom.js';
import { bytesOf, endsLine, fill, hexOf, shownBytes } from './pieces.js';

const EXAMPLE = 'Tokens are pieces of text: naïve, 1234 and 🙂.\n\n  They need not be words.';
const PAUSE_MS = 250; // After the last key, before the text is sent.

/** Returns the number with its noun. */
const count = (n, noun) => `${n.toLocaleString('en')} ${noun}${n === 1 ? '' : 's'}`;

export function startTokens(state) {
  const input = byId('tokens-text');
  const status = byId('tokens-status');
  input.value = EXAMPLE;
  let asked = null; // The text that was sent last.
  let timer = 0;
  let abort = null;

  async function update() {
    if (input.value === asked) return;
    asked = input.value;
    abort?.abort();
    abort = new AbortController();
    try {
      const answer = await request('/playground/tokens', { text: asked }, abort.signal);
      status.textContent = '';
      byId('tokens-list').replaceChildren(...answer.tokenizers.map(tokenizerCard));
    } catch (error) {
      if (error.name === 'AbortError') return;
      asked = null;
      status.textContent = error.message;
    }
  }

  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(update, PAUSE_MS);
  });
  return { shown: update };
}

function tokenizerCard({ names, vocab_size, tokens, num_bytes, merges, no_merges }, index) {
  const heading = `tokenizer-${index}`;
  const ratio = tokens.length ? (num_bytes / tokens.length).toFixed(2) : '0';
  const detail = element('p', { class: 'detail', role: 'status' }, 'Choose a token to see its id and bytes.');
  const run = element('div', { class: 'run', role: 'toolbar', 'aria-labelledby': heading });
  tokens.forEach((token, at) => {
    const piece = element('span', {
      role: 'button',
      class: `token hue-${at % 4}`,
      'data-item': true,
      tabindex: at ? -1 : 0,
      'aria-label': `${shownBytes(token.bytes).label}, id ${token.id}`,
    });
    run.append(fill(piece, token.bytes), endsLine(token.bytes) ? element('br') : '');
  });
  toolbar(run, (at) => {
    run.querySelectorAll('.token').forEach((piece, n) => piece.classList.toggle('chosen', n === at));
    detail.replaceChildren(...described(tokens[at]));
  });
  return element(
    'section',
    { class: 'card', 'aria-labelledby': heading },
    element(
      'div',
      { class: 'heading' },
      element('h3', { id: heading }, names.join(', ')),
      element('p', { class: 'status' },
        `${count(tokens.length, 'token')}, ${count(num_bytes, 'byte')}, ${ratio} bytes per token; ` +
        `a vocabulary of ${vocab_size.toLocaleString('en')}`),
    ),
    element('div', { class: 'document' }, run),
    detail,
    element('details', {}, element('summary', {}, 'All ids and bytes'), tokenTable(tokens, names)),
    merges ? mergeView(merges, names, index) : element('p', { class: 'lead' }, no_merges),
  );
}

function described(token) {
  const { text, label } = shownBytes(token.bytes);
  return [
    element('code', {}, text ?? label),
    ` has id ${token.id} and the bytes `,
    element('code', {}, hexOf(token.bytes)),
    '.',
  ];
}

function tokenTable(tokens, names) {
  const rows = tokens.map(({ id, bytes }) =>
    element('tr', {}, element('td', {}, fill(element('code'), bytes)), element('td', {}, String(id)),
      element('td', {}, element('code', {}, hexOf(bytes)))));
  const head = ['Token', 'Id', 'Bytes'].map((name) => element('th', { scope: 'col' }, name));
  return element('div', { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `All tokens by ${names}` },
    element('table', {}, element('thead', {}, element('tr', {}, ...head)), element('tbody', {}, ...rows)));
}

/** A slider over the merges of a text, from its bytes to its tokens. */
function mergeView({ pieces, steps }, names, index) {
  const id = `merges-${index}`;
  const slider = element('input', { id, type: 'range', min: 0, max: steps.length, value: 0 });
  const says = element('output', { for: id });
  const run = element('div', { class: 'run parts', role: 'group', 'aria-label': 'Parts after this merge' });
  const step = (by) => element('button', {
    type: 'button',
    'aria-label': by < 0 ? 'One merge back' : 'One merge on',
    onclick: () => {
      slider.value = Number(slider.value) + by;
      update();
    },
  }, by < 0 ? '←' : '→');
  const back = step(-1);
  const on = step(1);

  function update() {
    const n = Number(slider.value);
    const { parts, fresh } = partsAfter(pieces, steps.slice(0, n));
    run.replaceChildren(...parts.map((piece, p) => element('span', { class: 'piece' },
      ...piece.map((part, at) => fill(
        element('span', { class: fresh.has(`${p}:${at}`) ? 'token fresh' : 'token' }), part)))));
    const last = steps[n - 1];
    const merged = last && `${shownBytes(last.left).label} and ${shownBytes(last.right).label}` +
      ` become ${shownBytes(last.left + last.right).label}`;
    says.textContent = n ? `Merge ${n} of ${steps.length}: ${merged}` :
      `${count(steps.length, 'merge')} to come; here are the bytes`;
    back.disabled = n === 0;
    on.disabled = n === steps.length;
  }

  slider.addEventListener('input', update);
  update();
  return element(
    'section',
    { class: 'merges', 'aria-label': `Merges by ${names}` },
    element('h4', {}, element('label', { for: id }, 'Merges, step by step')),
    element('div', { class: 'stepper' }, back, slider, on),
    says,
    element('div', { class: 'document' }, run),
  );
}

/** Returns the parts of each piece after some merges, and the places that the last one made. */
function partsAfter(pieces, steps) {
  const parts = pieces.map(bytesOf).map((bytes) => [...bytes].map((b) => hexOf(b, '')));
  let fresh = new Set();
  steps.forEach(({ left, right, places }, n) => {
    const isLast = n === steps.length - 1;
    for (const [piece, at] of places) {
      parts[piece].splice(at, 2, left + right);
      if (isLast) fresh.add(`${piece}:${at}`);
    }
  });
  return { parts, fresh };
}
