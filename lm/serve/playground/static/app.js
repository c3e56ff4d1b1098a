// Starts the page: which models there are, the tabs, the colours, and the key if one is needed.

import { startBase } from './base.js';
import { startChat } from './chat.js';
import { startCompare } from './compare.js';
import { byId, element } from './dom.js';
import { startInside } from './inside.js';
import { startTokens } from './tokens.js';
import { onKeyWanted, request, setKey } from './api.js';

const STARTERS = {
  chat: startChat,
  base: startBase,
  tokens: startTokens,
  inside: startInside,
  compare: startCompare,
};
const views = {}; // What each starter returned: {shown(), modelChanged()}, both optional.

/** What the views share: the models, and which one is chosen. */
const state = {
  about: null,
  get model() {
    return this.about.models.find((model) => model.name === byId('model').value);
  },
};

function startTabs() {
  const tabs = [...document.querySelectorAll('[role=tab]')];
  const show = (name) => {
    document.body.dataset.view = name;
    for (const tab of tabs) {
      const chosen = tab.getAttribute('aria-controls') === name;
      tab.setAttribute('aria-selected', String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      byId(tab.getAttribute('aria-controls')).hidden = !chosen;
    }
    views[name]?.shown?.();
  };
  // The address names the view, not the id of an element, to which the focus would move.
  const nameOf = () => (location.hash.slice(2) in STARTERS ? location.hash.slice(2) : 'chat');
  for (const [at, tab] of tabs.entries()) {
    tab.addEventListener('click', () => {
      location.hash = `/${tab.getAttribute('aria-controls')}`;
    });
    tab.addEventListener('keydown', (event) => {
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const other = tabs[(to + tabs.length) % tabs.length];
      other.focus();
      other.click();
    });
  }
  addEventListener('hashchange', () => show(nameOf()));
  show(nameOf());
}

function startTheme() {
  const button = byId('theme');
  const system = matchMedia('(prefers-color-scheme: dark)');
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? 'dark' : '')) === 'dark';
  const update = () => {
    button.textContent = isDark() ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `Use ${isDark() ? 'light' : 'dark'} colours`);
    dispatchEvent(new Event('themechange'));
  };
  button.addEventListener('click', () => {
    const chosen = isDark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = chosen;
    try {
      localStorage.setItem('theme', chosen);
    } catch {
      // Storage may be forbidden; the choice then holds for this page only.
    }
    update();
  });
  system.addEventListener('change', update);
  update();
}

async function loadModels() {
  const problem = byId('problem');
  try {
    state.about = await request('/playground/about');
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = !byId('key-form').hidden;
    return;
  }
  problem.hidden = true;
  byId('key-form').hidden = true;
  const select = byId('model');
  select.replaceChildren(...state.about.models.map(({ name }) => element('option', {}, name)));
  select.disabled = state.about.models.length < 2;
  for (const [name, start] of Object.entries(STARTERS)) views[name] = start(state) ?? {};
  select.addEventListener('change', () => {
    for (const view of Object.values(views)) view.modelChanged?.();
  });
  startTabs();
}

startTheme();
onKeyWanted(() => {
  byId('key-form').hidden = false;
});
byId('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  setKey(byId('key').value);
  byId('key-form').hidden = true;
  if (state.about) return;
  loadModels();
});
loadModels();
