// Tokens as people read them. The server sends their bytes as hexadecimal digits, because a token
// may be a part of a character.

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const NAMES = { ' ': 'space', '\n': 'new line', '\t': 'tab', '\r': 'return', '\u00a0': 'no-break space' };
const SIGNS = { ' ': '·', '\n': '↵', '\t': '→', '\r': '↤', '\u00a0': '⍽' };
// Characters that would not be seen, or would change how others are shown: controls, joiners,
// marks of direction, variation selectors, the byte order mark.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\u2000-\u200a\u3000\ufe00-\ufe0f]/u;

/** Returns the bytes of hexadecimal digits. */
export const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));

/** Returns a byte, or hexadecimal digits, as digits with spaces between the bytes. */
export function hexOf(value, gap = ' ') {
  const digits = typeof value === 'number' ? value.toString(16).padStart(2, '0') : value;
  return (digits.match(/../g) ?? []).join(gap).toUpperCase();
}

/** Returns {text, label}: the text of bytes, null where they are no text, and what to call it. */
export function shownBytes(hex) {
  let text = null;
  try {
    text = utf8.decode(bytesOf(hex));
  } catch {
    return { text, label: `bytes ${hexOf(hex)}` };
  }
  const characters = [...text];
  if (text === '') return { text, label: 'nothing' };
  if (characters.every((c) => c in NAMES)) {
    return { text, label: characters.map((c) => NAMES[c]).join(', ') };
  }
  return { text, label: `“${characters.map((c) => (c === ' ' ? c : signOf(c) ?? c)).join('')}”` };
}

/** Returns the sign for a character that is not seen, or null. */
function signOf(c) {
  return SIGNS[c] ?? (UNSEEN.test(c) ? `U+${c.codePointAt(0).toString(16).toUpperCase()}` : null);
}

/**
 * Fills a node with the text of bytes, in which signs stand for what is no text or is not seen.
 * Spaces are signs, too, unless `plain`; then line ends also break the line.
 */
export function fill(node, hex, plain = false) {
  const { text } = shownBytes(hex);
  if (text === null) {
    node.append(sign(hexOf(hex)));
    node.classList.add('raw');
    return node;
  }
  for (const c of text) {
    const shown = plain && c === ' ' ? null : signOf(c);
    node.append(shown === null ? c : sign(shown));
    if (plain && c === '\n') node.append(c);
  }
  return node;
}

/** Returns whether a line ends with these bytes. */
export const endsLine = (hex) => /0a$/i.test(hex);

/** Returns the class that colours a token by its log-probability. */
export function shade(logProb) {
  if (logProb == null) return 'unknown';
  const p = Math.exp(logProb);
  return ['p0', 'p1', 'p2', 'p3', 'p4'][[0.01, 0.1, 0.3, 0.7].filter((limit) => p >= limit).length];
}

function sign(text) {
  const node = document.createElement('i');
  node.className = 'sign';
  node.textContent = text;
  return node;
}
