// api.js sends requests to Parley. It knows problems (RFC 9457) and waiting, and
// leaves to session.js who asks.

// The API stands beside the page, wherever a proxy has put both.
const base = new URL("api/v1/", document.baseURI);

// A Problem is an answer that says no, or, with status 0, none at all.
export class Problem extends Error {
  constructor(status, document = {}, retryAfter = 0) {
    super(document.detail || (status === 0 ? "The service cannot be reached." : `The service answered ${status}.`));
    this.status = status;
    this.code = document.code || "";
    this.fields = document.errors || [];
    this.document = document;
    this.retryAfter = retryAfter; // seconds; 0: not said
  }

  // passes tells whether the same may work a little later, as nothing is wrong
  // with what was asked.
  get passes() {
    if (this.code === "voice_unavailable" || this.code === "daily_limit_reached") return false;
    return [0, 408, 429, 502, 503, 504].includes(this.status);
  }
}

// ask sends one request and returns the answer, if that is a good one. body may be
// an object, which is sent as JSON, or bytes.
export async function ask(method, path, { body, headers = {}, token, signal } = {}) {
  const sent = new Headers(headers);
  if (token) sent.set("Authorization", `Bearer ${token}`);
  const bytes = body instanceof Blob || body instanceof ArrayBuffer;
  if (body !== undefined && !bytes) {
    sent.set("Content-Type", "application/json");
    body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(new URL(path, base), { method, headers: sent, body, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Problem(0);
  }
  if (response.ok) return response;
  let document;
  if (/^application\/(problem\+)?json\b/.test(response.headers.get("Content-Type"))) {
    document = await response.json().catch(() => undefined);
  }
  throw new Problem(response.status, document, Number(response.headers.get("Retry-After")) || 0);
}

// read returns what the JSON of an answer says. An answer that broke off is none.
export async function read(response, signal) {
  try {
    return await response.json();
  } catch {
    if (signal?.aborted) throw signal.reason;
    throw new Problem(0);
  }
}

// newKey is for Idempotency-Key. randomUUID would ask for https.
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// pause waits, for as long as the tries before were many, and never in step with
// other clients. It ends early when the network is back or the page is seen
// again, and throws when signal says so.
export function pause(least, tries, signal) {
  const most = Math.min(least * 2 ** tries, Math.max(least, 10_000));
  const time = least + Math.random() * Math.max(most - least, least / 2);
  return new Promise((resolve, reject) => {
    const stop = new AbortController();
    const timer = setTimeout(finish, time);
    function finish() {
      clearTimeout(timer);
      stop.abort();
      signal?.aborted ? reject(signal.reason) : resolve();
    }
    addEventListener("online", finish, { signal: stop.signal });
    document.addEventListener("visibilitychange", () => document.hidden || finish(), { signal: stop.signal });
    signal?.addEventListener("abort", finish, { signal: stop.signal });
    if (signal?.aborted) finish();
  });
}

// patiently does what may fail for a while until it works. What it does must be
// safe to do again.
export async function patiently(act, { signal, tries = Infinity, waiting = () => {} } = {}) {
  for (let tried = 0; ; tried++) {
    try {
      return await act();
    } catch (problem) {
      if (!(problem instanceof Problem) || !problem.passes || tried + 1 >= tries) throw problem;
      waiting(problem);
      await pause(Math.max(500, problem.retryAfter * 1000), tried, signal);
    }
  }
}
