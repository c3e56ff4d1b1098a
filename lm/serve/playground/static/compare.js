// The view Compare: two models answer the same prompt, and their names are shown after the vote.

import { request, stream } from './api.js';
import { byId, element, toggleRunning } from './dom.js';
import { randomSeed, samplingFields } from './sampling.js';

/** Returns 0 or 1, each as often as the other. */
const coin = () => crypto.getRandomValues(new Uint8Array(1))[0] & 1;

export function startCompare(state) {
  const [first, second] = state.about.models;
  const status = byId('compare-status');
  const lead = byId('compare-lead');
  const form = byId('compare-form');
  const readSampling = samplingFields(byId('compare-sampling'), 'compare');
  if (!second) {
    lead.textContent = 'This needs a server with two models: give --checkpoint twice.';
    form.hidden = true;
    return {};
  }
  const pair = [first, second];
  const kind = pair.every((model) => model.can_chat) ? 'chat' : 'completion';
  const does = kind === 'chat' ? 'answer your message' : 'continue your text';
  lead.textContent = `Two models ${does}. Which is which is shown after your vote` +
    `${state.about.takes_votes ? ', which is kept in the arena file.' : '; votes are not kept.'}`;
  let round = null; // {prompt, left, answers}: `answers` in the order of `pair`.
  let abort = null;

  async function ask() {
    const left = coin();
    const own = { prompt: byId('compare-prompt').value, left, answers: ['', ''] };
    round = own;
    abort?.abort();
    abort = new AbortController();
    const { signal } = abort;
    const sampling = { seed: randomSeed(), ...readSampling() };
    const sides = left === 0 ? ['a', 'b'] : ['b', 'a']; // Of each of the pair.
    setVoting('none');
    byId('compare-answers').hidden = false;
    for (const [side, name] of [['a', 'Answer A'], ['b', 'Answer B']]) {
      byId(`compare-${side}-heading`).textContent = name;
      byId(`compare-${side}`).replaceChildren();
    }
    toggleRunning(byId('compare-ask'), byId('compare-stop'), true);
    status.textContent = 'Writing…';
    // Both answers are shown at once: the speed of one would tell which model it is.
    const results = await Promise.allSettled(pair.map(async (model, n) => {
      for await (const text of write(model, kind, own.prompt, sampling, signal)) {
        if (round !== own) return;
        own.answers[n] += text;
        const length = own.answers[0].length + own.answers[1].length;
        status.textContent = `Writing… ${length} characters`;
      }
    }));
    if (round !== own) return;
    toggleRunning(byId('compare-ask'), byId('compare-stop'), false);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) {
      round = null;
      status.textContent = failed.reason.name === 'AbortError' ? 'Stopped.' : failed.reason.message;
      return;
    }
    sides.forEach((side, n) => byId(`compare-${side}`).append(own.answers[n]));
    status.textContent = 'Which answer is better?';
    setVoting('open');
  }

  async function vote(chosen) {
    const { prompt, left, answers } = round;
    setVoting('closed', chosen);
    try {
      if (state.about.takes_votes) {
        const models = pair.map((model) => model.name);
        await request('/playground/vote', { kind, prompt, models, answers, left, vote: chosen });
      }
    } catch (error) {
      status.textContent = `The vote was not kept: ${error.message}`;
      setVoting('open');
      return;
    }
    byId('compare-a-heading').replaceChildren('A: ', element('b', {}, pair[left].name));
    byId('compare-b-heading').replaceChildren('B: ', element('b', {}, pair[1 - left].name));
    status.textContent = `Thank you. A was ${pair[left].name}, B was ${pair[1 - left].name}.`;
    byId('compare-ask').focus();
  }

  function setVoting(phase, chosen = null) {
    const votes = byId('compare-votes');
    votes.hidden = phase === 'none';
    for (const button of votes.querySelectorAll('button')) {
      button.disabled = phase !== 'open';
      button.setAttribute('aria-pressed', String(button.dataset.vote === chosen));
    }
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (byId('compare-stop').hidden) ask();
  });
  byId('compare-prompt').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId('compare-stop').addEventListener('click', () => abort?.abort());
  byId('compare-votes').addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (button && round) vote(button.dataset.vote);
  });
  return {};
}

/** Yields the text of a model's answer as it comes. */
async function* write(model, kind, prompt, sampling, signal) {
  const body = { model: model.name, ...sampling };
  if (kind === 'chat') {
    const messages = [{ role: 'user', content: prompt }];
    for await (const { choices } of stream('/v1/chat/completions', { ...body, messages }, signal)) {
      if (choices?.[0]?.delta?.content) yield choices[0].delta.content;
    }
  } else {
    for await (const { choices } of stream('/v1/completions', { ...body, prompt }, signal)) {
      if (choices?.[0]?.text) yield choices[0].text;
    }
  }
}
