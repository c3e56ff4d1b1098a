// The view Inside: where each head looks in a short text, and what each layer would say next.

import { request } from './api.js';
import { bar, byId, element, percent, toolbar } from './dom.js';
import { fill, shownBytes } from './pieces.js';

const EXAMPLE = 'The capital of France is Paris, and the capital of Italy is';

export function startInside(state) {
  const input = byId('inside-text');
  const status = byId('inside-status');
  const run = byId('inside-tokens');
  const heads = byId('inside-heads');
  const slider = byId('inside-layer');
  const map = element('canvas', { role: 'img' });
  byId('inside-map').append(map);
  input.value = EXAMPLE;
  let seen = null; // The server's answer.
  let token = 0; // The token that is chosen.
  let head = 0;
  let asked = null; // The text and the model of `seen`.
  let abort = null;

  async function look(layer) {
    abort?.abort();
    const own = new AbortController();
    abort = own;
    const question = asked ?? { model: state.model.name, text: input.value };
    status.textContent = 'Reading…';
    try {
      seen = await request('/playground/inside', { ...question, layer }, own.signal);
    } catch (error) {
      if (error.name !== 'AbortError') status.textContent = error.message;
      return false;
    }
    asked = question;
    status.textContent = '';
    return true;
  }

  async function begin() {
    asked = null;
    slider.max = state.model.num_layers;
    slider.value = Math.ceil(state.model.num_layers / 2);
    if (!(await look(Number(slider.value) - 1))) return;
    token = seen.tokens.length - 1;
    head = 0;
    run.replaceChildren(...seen.tokens.map(({ bytes }, at) => fill(element('span', {
      role: 'button',
      class: 'token',
      'data-item': true,
      tabindex: at === token ? 0 : -1,
      'aria-label': shownBytes(bytes).label,
    }), bytes, true)));
    heads.replaceChildren(...seen.attention.map((_, n) => element('button', {
      type: 'button',
      'data-item': true,
      tabindex: n ? -1 : 0,
      'aria-label': `Head ${n + 1}`,
    }, element('canvas', { 'aria-hidden': 'true' }), element('span', {}, String(n + 1)))));
    byId('inside-view').hidden = false;
    update();
  }

  function update() {
    byId('inside-layer-value').textContent = `${slider.value} of ${slider.max}`;
    [...run.children].forEach((node, at) => {
      node.classList.toggle('chosen', at === token);
      node.setAttribute('aria-pressed', String(at === token));
    });
    [...heads.children].forEach((node, n) => node.setAttribute('aria-pressed', String(n === head)));
    drawMaps();
    showReads();
    showLens();
  }

  function drawMaps() {
    if (!seen || byId('inside').hidden) return;
    [...heads.querySelectorAll('canvas')].forEach((canvas, n) => draw(canvas, seen.attention[n], 48));
    draw(map, seen.attention[head], 360, token);
    map.setAttribute('aria-label',
      `Attention of head ${head + 1} in layer ${slider.value}: a row for each token that reads, a ` +
      'column for each token that it reads from. The chosen row is listed below.');
  }

  function showReads() {
    const weights = seen.attention[head][token].slice(0, token + 1);
    const order = weights.map((weight, at) => ({ weight, at })).sort((a, b) => b.weight - a.weight);
    byId('inside-reads-heading').textContent =
      `Head ${head + 1}, layer ${slider.value}: ${shownBytes(seen.tokens[token].bytes).label} reads from`;
    byId('inside-reads').replaceChildren(...order.slice(0, 8).map(({ weight, at }) =>
      element('li', { class: 'row' },
        fill(element('span', { class: 'name' }), seen.tokens[at].bytes),
        bar(weight), element('span', { class: 'number' }, percent(weight)))));
  }

  function showLens() {
    const { label } = shownBytes(seen.tokens[token].bytes);
    byId('inside-lens-lead').textContent =
      `If the model ended after a layer, it would say this after ${label}. The entropy says how ` +
      'undecided it is, in nats.';
    const head = ['Layer', 'Next token', 'Probability', 'Entropy'];
    const rows = seen.layers.map(({ guesses, entropy }, layer) => {
      const [best, ...rest] = guesses[token];
      const others = rest.map((g) => `${shownBytes(g.bytes).label} ${percent(g.probability)}`);
      return element('tr', {},
        element('th', { scope: 'row' }, String(layer + 1)),
        element('td', { title: `then ${others.join(', ')}` }, fill(element('code'), best.bytes)),
        element('td', {}, element('div', { class: 'measure' }, bar(best.probability),
          element('span', { class: 'number' }, percent(best.probability)))),
        element('td', { class: 'number' }, entropy[token].toFixed(2)));
    });
    byId('inside-lens').replaceChildren(element('table', { class: 'lens' },
      element('thead', {}, element('tr', {}, ...head.map((name) => element('th', { scope: 'col' }, name)))),
      element('tbody', {}, ...rows)));
  }

  toolbar(run, (at) => {
    token = at;
    update();
  });
  toolbar(heads, (n) => {
    head = n;
    update();
  });
  slider.addEventListener('input', () => {
    byId('inside-layer-value').textContent = `${slider.value} of ${slider.max}`;
  });
  slider.addEventListener('change', async () => {
    if (await look(Number(slider.value) - 1)) update();
  });
  byId('inside-form').addEventListener('submit', (event) => {
    event.preventDefault();
    begin();
  });
  addEventListener('themechange', drawMaps);
  const forget = () => {
    seen = null;
    byId('inside-view').hidden = true;
  };
  return { shown: drawMaps, modelChanged: forget };
}

/**
 * Draws weights [reads][from] as squares in the canvas' own colour, and a frame in the colour of its
 * border around the row `chosen`.
 */
function draw(canvas, weights, size, chosen = -1) {
  const count = weights.length;
  const cell = Math.max(1, Math.floor((size * devicePixelRatio) / count));
  canvas.width = canvas.height = cell * count;
  const context = canvas.getContext('2d');
  const style = getComputedStyle(canvas);
  context.fillStyle = style.color;
  weights.forEach((row, t) => row.forEach((weight, s) => {
    if (s > t || weight < 0.004) return;
    context.globalAlpha = Math.sqrt(weight); // Small weights are to be seen, too.
    context.fillRect(s * cell, t * cell, cell, cell);
  }));
  if (chosen < 0) return;
  context.globalAlpha = 1;
  context.strokeStyle = style.borderTopColor;
  context.lineWidth = Math.max(1, devicePixelRatio);
  const half = context.lineWidth / 2;
  context.strokeRect(half, chosen * cell + half, (chosen + 1) * cell - 2 * half, cell - 2 * half);
}
