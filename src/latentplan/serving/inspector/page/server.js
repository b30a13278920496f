// The server's answers, and in words what went wrong where there is none.

let key = "", running = new AbortController();

/** An error whose message can be shown. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const setKey = (value) => { key = value.trim(); };

/** Gives up whatever is being waited for: it ends with an `Abandoned`. */
export function abandon() {
  running.abort();
  running = new AbortController();
}

/** Thrown where the page itself no longer wants the answer. */
export class Abandoned extends Error {}

async function send(path, body) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const { signal } = running;
  const options = body === undefined ? { headers, signal } : { method: "POST", headers, signal, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(`inspect/${path}`, options);
  } catch (error) {
    throw gone(error);
  }
  if (!response.ok) throw new Refused(await why(response), response.status);
  return response;
}

function gone(error) {
  if (error?.name === "AbortError") return new Abandoned();
  return new Refused("The server does not answer. Is `latentplan serve` still running?", 0);
}

async function why(response) {
  try {
    const { error, detail } = await response.json();
    const message = error?.message ?? (typeof detail === "string" ? detail : null);
    if (message) return message[0].toUpperCase() + message.slice(1);
  } catch { /* no JSON: the status has to do */ }
  return `The server answered ${response.status} ${response.statusText}.`.replace(" .", ".");
}

/** What `GET inspect/PATH`, or a POST of `body`, answers. */
export async function fetchJson(path, body) {
  const response = await send(path, body);
  try {
    return await response.json();
  } catch (error) {
    throw gone(error);
  }
}

/** Calls `onEvent` with each line of JSON that the server sends, as it comes. */
export async function fetchEvents(path, body, onEvent) {
  const response = await send(path, body);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", last = null;
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw gone(error);
    }
    if (part.done) break;
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      last = JSON.parse(line);
      if (last.event === "error") throw new Refused(last.message[0].toUpperCase() + last.message.slice(1), last.status);
      onEvent(last);
    }
  }
  if (last?.event !== "done") throw gone();
}
