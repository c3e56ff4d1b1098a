// Requests to the server, and what it says when it refuses one.

let key = '';
let askForKey = () => {};

/** Sets the API key that requests carry from now on. */
export const setKey = (value) => {
  key = value;
};

/** Sets what is called when the server asks for a key. */
export const onKeyWanted = (callback) => {
  askForKey = callback;
};

async function send(path, body, signal) {
  const headers = { 'Content-Type': 'application/json' };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? 'GET' : 'POST',
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('The server does not answer.');
  }
  if (response.ok) return response;
  if (response.status === 401) askForKey();
  const answer = await response.json().catch(() => null);
  throw new Error(answer?.error?.message ?? `The server answered with status ${response.status}.`);
}

/** Returns the JSON of the server's answer; without a body it is a GET. */
export async function request(path, body, signal) {
  return (await send(path, body, signal)).json();
}

/** Yields the JSON of each event of a streamed answer (server-sent events) until [DONE]. */
export async function* stream(path, body, signal) {
  const response = await send(path, { ...body, stream: true }, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const events = rest.split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) {
        const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'));
        const data = lines.map((line) => line.slice(5).trimStart()).join('\n');
        if (data === '[DONE]') return;
        if (!data) continue;
        const parsed = JSON.parse(data);
        if (parsed.error) throw new Error(parsed.error.message);
        yield parsed;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
