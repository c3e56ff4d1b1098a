// The view Chat: a conversation, streamed, that can be stopped, tried again and edited.

import { stream } from './api.js';
import { byId, element, toggleRunning } from './dom.js';
import { samplingFields } from './sampling.js';

/** Returns the number of words of a text, as it is shown beside a folded thought. */
const words = (text) => {
  const count = (text.match(/\S+/g) ?? []).length;
  return `${count} word${count === 1 ? '' : 's'}`;
};

/**
 * Yields the pieces of a streamed answer: {kind, text} of what is said or thought, {kind: 'call',
 * index, text, result} of calls of the server's tools, {kind: 'note', text} for the reader.
 */
async function* answer(body, signal) {
  for await (const { choices } of stream('/v1/chat/completions', body, signal)) {
    const { delta = {}, finish_reason: reason } = choices?.[0] ?? {};
    if (delta.reasoning_content) yield { kind: 'think', text: delta.reasoning_content };
    if (delta.reasoning_length) {
      yield { kind: 'note', text: `A thought of ${delta.reasoning_length.tokens} tokens is not shown.` };
    }
    for (const { index, call = '', result = '' } of delta.server_tool_calls ?? []) {
      yield { kind: 'call', index, text: call, result };
    }
    if (delta.content) yield { kind: 'text', text: delta.content };
    if (reason === 'length') yield { kind: 'note', text: 'Cut off at the longest answer.' };
  }
}

/** Returns the text that a message says, without thoughts and calls. */
const saidBy = ({ parts }) =>
  parts.filter(({ kind }) => kind === 'text').map(({ text }) => text).join('');

/** Returns the messages as the server takes them, without questions that got no answer. */
function conversation(messages) {
  const sent = [];
  for (const message of messages) {
    const { role, parts } = message;
    const content = saidBy(message);
    const calls = parts.filter(({ kind }) => kind === 'call');
    if (role === 'assistant' && !content.trim() && !calls.length) {
      sent.pop();
      continue;
    }
    const entry = { role, content };
    const thought = parts.filter(({ kind }) => kind === 'think').map(({ text }) => text).join('');
    if (thought) entry.reasoning_content = thought;
    if (calls.length) {
      entry.server_tool_calls = calls.map((call) => {
        const before = saidBy({ parts: parts.slice(0, parts.indexOf(call)) });
        return { call: call.text, result: call.result, offset: [...before].length };
      });
    }
    sent.push(entry);
  }
  return sent;
}

export function startChat(state) {
  const list = byId('chat-messages');
  const input = byId('chat-input');
  const status = byId('chat-status');
  const readSampling = samplingFields(byId('chat-sampling'), 'chat');
  let messages = []; // {role, parts: [{kind, text}], node}
  let abort = null;

  function update() {
    byId('chat-blank').hidden = messages.length > 0;
    byId('chat-retry').hidden = abort !== null || messages.length === 0;
    byId('chat-new').hidden = messages.length === 0;
  }

  function addMessage(role, text) {
    const message = { role, parts: [{ kind: 'text', text }] };
    message.node = element('li', { class: `message ${role}` });
    messages.push(message);
    list.append(message.node);
    render(message);
    return message;
  }

  function cut(length) {
    for (const { node } of messages.splice(length)) node.remove();
  }

  /** Shows a message that is not being written. */
  function render(message) {
    const name = message.role === 'user' ? 'You' : state.model.name;
    message.node.replaceChildren(
      element('div', { class: 'heading' },
        element('h3', {}, message.name ??= name),
        element('button', {
          type: 'button',
          class: 'quiet',
          'aria-label': `Edit message ${messages.indexOf(message) + 1}`,
          onclick: () => edit(message),
        }, 'Edit')),
      ...message.parts.map(partNode),
    );
  }

  /** Returns the node of a part, and gives the part a function `add` that makes it longer. */
  function partNode(part) {
    if (part.kind === 'text' || part.kind === 'note') {
      const node = element('p', { class: part.kind === 'text' ? 'said' : 'status' }, part.text);
      part.add = ({ text }) => node.append(text);
      return node;
    }
    const isThought = part.kind === 'think';
    const note = element('span', { class: 'status' });
    const text = element('pre', { tabindex: 0, 'aria-label': isThought ? 'Thought' : 'Call' }, part.text);
    const result = element('pre', { tabindex: 0, 'aria-label': 'Result' }, part.result ?? '');
    const describe = () => {
      note.textContent = isThought ? words(part.text) : part.text.trim().split('\n')[0].slice(0, 60);
      result.hidden = !part.result;
    };
    part.add = (more) => {
      text.append(more.text);
      result.append(more.result ?? '');
      describe();
    };
    describe();
    return element('details', { class: 'aside' },
      element('summary', {}, isThought ? 'Thought ' : 'Tool call ', note), text, result);
  }

  /** Adds a piece to a message that is being written, without touching what is there. */
  function write(message, piece) {
    let part = message.parts.at(-1);
    if (part?.kind !== piece.kind || part.index !== piece.index) {
      part = { ...piece, text: '', result: '' };
      message.parts.push(part);
      message.node.append(partNode(part));
    }
    part.text += piece.text;
    part.result += piece.result ?? '';
    part.add(piece);
  }

  async function ask() {
    const system = byId('chat-system').value.trim();
    const said = conversation(messages);
    const body = {
      model: state.model.name,
      messages: system ? [{ role: 'system', content: system }, ...said] : said,
      ...readSampling(),
    };
    const message = addMessage('assistant', '');
    message.parts = [];
    message.node.lastElementChild.remove();
    const own = new AbortController();
    abort = own;
    toggleRunning(byId('chat-send'), byId('chat-stop'), true);
    list.setAttribute('aria-busy', 'true');
    status.textContent = 'Answering…';
    update();
    let ending = '';
    try {
      for await (const piece of answer(body, own.signal)) {
        const follows = isAtEnd();
        write(message, piece);
        if (follows) scrollToEnd();
      }
    } catch (error) {
      ending = error.name === 'AbortError' ? 'Stopped.' : error.message;
    }
    if (message.parts.length === 0 && ending) {
      message.node.remove();
      messages = messages.filter((other) => other !== message);
    }
    if (abort !== own) return;
    abort = null;
    list.removeAttribute('aria-busy');
    status.textContent = ending;
    toggleRunning(byId('chat-send'), byId('chat-stop'), false);
    update();
  }

  const isAtEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
  const scrollToEnd = () => scrollTo(0, document.documentElement.scrollHeight);

  function send() {
    const text = input.value.trim();
    if (!text || abort) return;
    input.value = '';
    if (messages.at(-1)?.role === 'user') cut(messages.length - 1);
    addMessage('user', text);
    scrollToEnd();
    ask();
  }

  function retry() {
    if (messages.at(-1)?.role === 'assistant') cut(messages.length - 1);
    input.focus();
    ask();
  }

  function edit(message) {
    abort?.abort();
    const isQuestion = message.role === 'user';
    const field = element('textarea', { rows: 3, 'aria-label': 'Edited message' });
    field.value = saidBy(message);
    const close = () => {
      render(message);
      message.node.querySelector('button').focus();
    };
    const form = element('form', { class: 'edit' }, field, element('div', { class: 'actions' },
      element('button', { type: 'submit', class: 'primary' }, isQuestion ? 'Ask again' : 'Save'),
      element('button', { type: 'button', onclick: close }, 'Cancel')));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const text = field.value.trim();
      if (!text) return;
      message.parts = [{ kind: 'text', text }];
      close();
      if (!isQuestion) return;
      cut(messages.indexOf(message) + 1);
      input.focus();
      ask();
    });
    form.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        close();
      } else if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    message.node.replaceChildren(form);
    field.focus();
  }

  byId('chat-form').addEventListener('submit', (event) => {
    event.preventDefault();
    send();
  });
  input.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  byId('chat').addEventListener('keydown', (event) => {
    if (event.key === 'Escape') abort?.abort();
  });
  byId('chat-stop').addEventListener('click', () => abort?.abort());
  byId('chat-retry').addEventListener('click', retry);
  byId('chat-new').addEventListener('click', () => {
    abort?.abort();
    abort = null;
    cut(0);
    status.textContent = '';
    toggleRunning(byId('chat-send'), byId('chat-stop'), false);
    list.removeAttribute('aria-busy');
    input.focus();
    update();
  });
  update();
}
