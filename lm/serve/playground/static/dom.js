// The few helpers with which all views make elements.

/** Returns the element of index.html with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Returns a new element. Strings among the children become text nodes, and nothing is ever parsed
 * as HTML. A property is an attribute, or a listener if its name begins with "on".
 */
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children);
  return node;
}

/** Returns a bar that shows a share from 0 to 1; the number itself stands beside it. */
export function bar(share) {
  const filled = element('span');
  filled.style.width = `${Math.max(0.5, 100 * share)}%`;
  return element('span', { class: 'bar', 'aria-hidden': 'true' }, filled);
}

/** Returns a probability as people read it: 42 %, 0.3 %. */
export function percent(p) {
  if (p >= 0.995) return p >= 0.9995 ? '100 %' : `${(100 * p).toFixed(1)} %`;
  if (p >= 0.0995) return `${Math.round(100 * p)} %`;
  return p >= 0.0005 ? `${(100 * p).toFixed(1)} %` : '< 0.1 %';
}

/**
 * Makes the children of a toolbar one stop of the Tab key, among which arrow keys, Home and End
 * move. Enter and the space bar press what has the focus. `choose` is called with its index.
 */
export function toolbar(node, choose) {
  const items = () => [...node.querySelectorAll('[data-item]')];
  const move = (to) => {
    const all = items();
    const item = all[Math.max(0, Math.min(all.length - 1, to))];
    if (!item) return;
    for (const other of all) other.tabIndex = -1;
    item.tabIndex = 0;
    item.focus();
  };
  node.addEventListener('keydown', (event) => {
    const at = items().indexOf(event.target.closest('[data-item]'));
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = items().length - 1;
    const steps = {
      ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last,
    };
    if (event.key in steps) move(steps[event.key]);
    else if (event.key === 'Enter' || event.key === ' ') choose(at);
    else return;
    event.preventDefault();
  });
  node.addEventListener('click', (event) => {
    const item = event.target.closest('[data-item]');
    if (!item) return;
    const all = items();
    for (const other of all) other.tabIndex = -1;
    item.tabIndex = 0;
    choose(all.indexOf(item));
  });
}

/** Shows one of two buttons: the one that starts something, or the one that stops it. */
export function toggleRunning(start, stop, running) {
  const held = document.activeElement === start || document.activeElement === stop;
  start.hidden = running;
  stop.hidden = !running;
  if (held) (running ? stop : start).focus();
}
