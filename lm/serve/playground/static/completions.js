// Completions of text, token by token, with the probabilities of what else there could have been.

import { request, stream } from './api.js';

export const ALTERNATIVES = 10;
const utf8 = new TextEncoder();

const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');

/** Returns the bytes of a token's name: its text, or "bytes:\xe2\x96" where it is no text. */
function bytesOfName(name) {
  const escaped = /^bytes:((?:\\x[0-9a-f]{2})+)$/i.exec(name);
  return escaped ? escaped[1].replaceAll('\\x', '') : hex(utf8.encode(name));
}

/** Returns the tokens of a choice: [{id, bytes, logProb, top: [{id, bytes, logProb}]}]. */
function tokensOf(choice) {
  const { tokens = [], token_ids, token_logprobs, top_logprobs, top_token_ids } = choice.logprobs ?? {};
  return tokens.map((name, at) => {
    const top = Object.entries(top_logprobs[at] ?? {}).map(([other, logProb]) => ({
      id: top_token_ids[at][other], bytes: bytesOfName(other), logProb,
    }));
    top.sort((a, b) => b.logProb - a.logProb);
    return { id: token_ids[at], bytes: bytesOfName(name), logProb: token_logprobs[at], top };
  });
}

/** Returns the tokens of a text as the model reads it, each with its alternatives. */
export async function score(model, text, signal) {
  const body = { model: model.name, prompt: text, max_tokens: 0, echo: true, logprobs: ALTERNATIVES };
  const answer = await request('/v1/completions', body, signal);
  return tokensOf(answer.choices[0]);
}

/** Yields the tokens that the model writes behind others, as they come. */
export async function* complete(model, tokens, sampling, signal) {
  const prompt = [model.document_start, ...tokens.map(({ id }) => id)];
  const body = { model: model.name, prompt, logprobs: ALTERNATIVES, ...sampling };
  for await (const { choices } of stream('/v1/completions', body, signal)) {
    if (choices?.length) yield* tokensOf(choices[0]);
  }
}
