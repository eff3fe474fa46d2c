// The way to the dashboard: questions and actions by fetch, events from a stream that is read by fetch as well,
// because EventSource can't send the token in a header, and a cookie would go to every other port of this machine too.

const KEPT = "hostkit-token";

export class Refused extends Error {
  constructor(status, type, message) {
    super(message);
    Object.assign(this, { status, type });
  }
}

let token = "";

// Take the token out of the address, where it would stay in sight and in the history.
export function takeToken() {
  const found = /^#token=([^&]+)/.exec(location.hash);
  if (found) {
    setToken(decodeURIComponent(found[1]));
    history.replaceState(null, "", `${location.pathname}#/`);
  } else {
    try { token = sessionStorage.getItem(KEPT) ?? ""; } catch { token = ""; }
  }
  return token !== "";
}

export function setToken(text) {
  token = text.trim();
  try { sessionStorage.setItem(KEPT, token); } catch { /* it lasts as long as the page, then */ }
}

export async function ask(path, parameters = {}) {
  const answer = await send(`${path}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.timeout(30_000) });
  return answer.json();
}

export async function act(action) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(action) };
  return (await send("/api/act", options)).json();
}

async function send(path, options) {
  // A header has no room for other letters; such a token can't be the right one.
  const authorization = `Bearer ${token.replace(/[^\x21-\x7e]/g, "?")}`;
  const headers = { ...options.headers, Authorization: authorization };
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (answer.ok) return answer;
  const text = await answer.text();
  let type = "", message = text;
  try { ({ type, message } = JSON.parse(text).error); } catch { /* a sentence */ }
  throw new Refused(answer.status, type, message);
}

// Call `heard(kind, data)` with every event; again and again after the stream ends. `lost(error)` says that it has.
export async function watch(heard, lost) {
  let wait = 500;
  for (;;) {
    const ending = new AbortController();
    let watchdog = 0;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => ending.abort(), 6000); // the dashboard sends something every second
    };
    try {
      alive();
      const answer = await send("/api/stream", { signal: ending.signal });
      for await (const [kind, data] of events(answer.body, alive)) {
        wait = 500;
        heard(kind, JSON.parse(data));
      }
      lost(null);
    } catch (error) {
      lost(error);
      if (error.status === 401) return;
    } finally {
      clearTimeout(watchdog);
      ending.abort();
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 1.6, 5000);
  }
}

async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    alive();
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
      if (fields.data !== undefined) yield [fields.event, fields.data];
    }
  }
}
