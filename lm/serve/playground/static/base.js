// The view Base model: a document that the model continues, its tokens with their alternatives, and
// several samples of one beginning side by side.

import { complete, score } from './completions.js';
import { bar, byId, element, percent, toggleRunning, toolbar } from './dom.js';
import { bytesOf, fill, shade, shownBytes } from './pieces.js';
import { randomSeed, samplingFields } from './sampling.js';

const LEGEND = [['p0', '< 1 %'], ['p1', '1'], ['p2', '10'], ['p3', '30'], ['p4', '> 70 %']];
const utf8 = new TextDecoder();

/** Returns the text of tokens; the bytes of a character may be spread over several. */
const textOf = (tokens) => utf8.decode(bytesOf(tokens.map((token) => token.bytes).join('')));

/** Returns a coloured token that can be chosen. */
function tokenNode(token, isFirst) {
  const p = token.logProb == null ? '' : `, ${percent(Math.exp(token.logProb))}`;
  const node = element('span', {
    role: 'button',
    class: `token ${shade(token.logProb)}`,
    'data-item': true,
    tabindex: isFirst ? 0 : -1,
    'aria-label': shownBytes(token.bytes).label + p,
  });
  return fill(node, token.bytes, true);
}

export function startBase(state) {
  const input = byId('base-text');
  const run = byId('base-tokens');
  const panel = byId('base-alternatives');
  const status = byId('base-status');
  const readSampling = samplingFields(byId('base-sampling'), 'base', { temperature: 1, max_tokens: 40 });
  const past = []; // The tokens of earlier documents, for Undo; none where it was being written.
  let tokens = []; // Of the document, while it is shown as tokens.
  let isWriting = true; // Whether the document is shown as text that can be edited.
  let chosen = -1;
  let abort = null;
  let sampleAbort = null;

  byId('base-legend').append(
    element('span', {}, 'Probability'),
    ...LEGEND.map(([name, text]) => element('span', { class: `token ${name}` }, text)),
  );

  function update() {
    byId('base-write').hidden = !isWriting;
    byId('base-read').hidden = isWriting;
    byId('base-edit').hidden = isWriting || abort !== null;
    byId('base-undo').hidden = past.length === 0 || abort !== null;
  }

  function choose(at) {
    chosen = at;
    [...run.children].forEach((node, n) => {
      node.classList.toggle('chosen', n === at);
      if (n === at) node.setAttribute('aria-pressed', 'true');
      else node.removeAttribute('aria-pressed');
    });
    panel.hidden = at < 0;
    if (at < 0) return;
    const { bytes, logProb, top } = tokens[at];
    const others = top.some((other) => other.bytes === bytes) || logProb == null
      ? top : [...top, { bytes, logProb }];
    panel.replaceChildren(
      element('h3', {}, 'Instead of ', element('span', { class: 'token chosen' }, shownBytes(bytes).label)),
      others.length
        ? element('ol', { class: 'bars' }, ...others.map((other) => alternative(other, at)))
        : element('p', { class: 'lead' }, 'The model predicts nothing before the first token.'),
    );
  }

  function alternative(other, at) {
    const p = percent(Math.exp(other.logProb));
    const isTaken = other.bytes === tokens[at].bytes;
    return element('li', {}, element('button', {
      type: 'button',
      class: isTaken ? 'row taken' : 'row',
      onclick: () => branch(at, other),
    }, element('span', { class: 'unseen' }, isTaken ? 'Write again from ' : 'Branch to '),
    fill(element('span', { class: 'name' }), other.bytes), bar(Math.exp(other.logProb)),
    element('span', { class: 'number' }, p)));
  }

  function show(list) {
    tokens = list;
    run.replaceChildren(...tokens.map((token, at) => tokenNode(token, at === 0)));
    isWriting = false;
    choose(-1);
    update();
  }

  function add(token) {
    tokens.push(token);
    run.append(tokenNode(token, tokens.length === 1));
  }

  /** Runs `work` between "Writing" and its end, with the button that stops it. */
  async function writing(work) {
    abort?.abort();
    const own = new AbortController();
    abort = own;
    toggleRunning(byId('base-continue'), byId('base-stop'), true);
    run.setAttribute('aria-busy', 'true');
    status.textContent = 'Writing…';
    update();
    let ending = '';
    try {
      await work(own.signal);
    } catch (error) {
      ending = error.name === 'AbortError' ? 'Stopped.' : error.message;
    }
    if (abort !== own) return;
    abort = null;
    run.removeAttribute('aria-busy');
    status.textContent = ending;
    toggleRunning(byId('base-continue'), byId('base-stop'), false);
    update();
  }

  const proceed = () => writing(async (signal) => {
    if (isWriting) show(await score(state.model, input.value, signal));
    choose(-1);
    await extend(signal);
  });

  const branch = (at, other) => writing(async (signal) => {
    past.push(tokens);
    show([...tokens.slice(0, at), { ...tokens[at], ...other }]);
    run.lastElementChild.tabIndex = 0;
    run.firstElementChild.tabIndex = run.children.length > 1 ? -1 : 0;
    run.lastElementChild.focus();
    await extend(signal);
  });

  /** Writes behind the tokens of the document. */
  async function extend(signal) {
    const prompt = [...tokens];
    for await (const token of complete(state.model, prompt, sampling(), signal)) add(token);
  }

  function sampling() {
    return { seed: randomSeed(), ...readSampling() };
  }

  function edit() {
    abort?.abort();
    const { stop_ids: ends } = state.model;
    input.value = textOf(tokens.filter(({ id }) => !ends.includes(id)));
    isWriting = true;
    update();
    input.focus();
  }

  async function sample() {
    const wanted = byId('base-count');
    const count = wanted.validity.valid && wanted.value !== '' ? Number(wanted.value) : 4;
    const shared = sampling();
    sampleAbort = new AbortController();
    const { signal } = sampleAbort;
    toggleRunning(byId('base-sample'), byId('base-sample-stop'), true);
    const { model } = state;
    let prefix;
    try {
      prefix = isWriting ? await score(model, input.value, signal) : [...tokens];
    } catch (error) {
      status.textContent = error.name === 'AbortError' ? 'Stopped.' : error.message;
      toggleRunning(byId('base-sample'), byId('base-sample-stop'), false);
      return;
    }
    const cards = Array.from({ length: count }, (_, n) => sampleCard(n, prefix));
    byId('base-samples').replaceChildren(...cards.map(({ node }) => node));
    await Promise.all(cards.map(async ({ write, end }, n) => {
      try {
        const own = { ...shared, seed: (shared.seed + n) % 2 ** 31 };
        for await (const token of complete(model, prefix, own, signal)) write(token);
        end('');
      } catch (error) {
        end(error.name === 'AbortError' ? 'Stopped.' : error.message);
      }
    }));
    toggleRunning(byId('base-sample'), byId('base-sample-stop'), false);
  }

  function sampleCard(n, prefix) {
    const written = [];
    const body = element('p', { class: 'run' });
    const says = element('span', { class: 'status' }, 'Writing…');
    const keep = element('button', {
      type: 'button',
      class: 'quiet',
      'aria-label': `Keep sample ${n + 1} as the document`,
      onclick: () => {
        past.push(isWriting ? [] : tokens);
        show([...prefix, ...written]);
        run.firstElementChild.focus();
      },
    }, 'Keep');
    const write = (token) => {
      written.push(token);
      const p = percent(Math.exp(token.logProb));
      const node = element('span', { class: `token ${shade(token.logProb)}`, title: p });
      body.append(fill(node, token.bytes, true));
    };
    const end = (text) => {
      const mean = written.reduce((sum, token) => sum + token.logProb, 0) / written.length;
      const figure = written.length ? `${written.length} tokens, ${(-mean).toFixed(2)} nats each` : '';
      says.textContent = [text, figure].filter(Boolean).join(' ');
    };
    const node = element('li', { class: 'card' },
      element('div', { class: 'heading' }, element('h3', {}, `Sample ${n + 1}`), keep), body, says);
    return { node, write, end };
  }

  toolbar(run, (at) => choose(at === chosen ? -1 : at));
  byId('base').addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    if (abort) abort.abort();
    else if (chosen >= 0) {
      const node = run.children[chosen];
      choose(-1);
      node.focus();
    }
  });
  byId('base-continue').addEventListener('click', proceed);
  byId('base-stop').addEventListener('click', () => abort?.abort());
  byId('base-edit').addEventListener('click', edit);
  byId('base-undo').addEventListener('click', () => {
    const before = past.pop();
    if (before.length) show(before);
    else isWriting = true;
    update();
    if (byId('base-undo').hidden) byId('base-continue').focus();
  });
  byId('base-sample').addEventListener('click', sample);
  byId('base-sample-stop').addEventListener('click', () => sampleAbort?.abort());
  update();
}
