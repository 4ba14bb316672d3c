// follow.js stays on an event stream whatever happens to the connection: it
// comes back with the last id it has, and the server sends the rest.

import { pause, Problem } from "./api.js";
import { EventParser } from "./sse.js";

// The server says something every 15 s, if only a comment; a connection that is
// silent for longer than this is dead, whatever the system thinks of it.
const silence = 40_000;

// follow reads a stream until on(event) returns true, signal aborts, or there is
// nothing more (204), and returns whether an event was the last. open(lastId,
// signal) asks for the stream and returns the answer; on gets {type, data, id},
// data being what the JSON says. state(connected, problem) tells when that
// changes. A refusal that will not pass is thrown.
export async function follow({ open, on, signal, lastId = "", state = () => {} }) {
  let least = 1000; // the server's retry, in milliseconds
  let tries = 0;
  let connected = null;
  const tell = (now, problem) => {
    if (connected !== now || problem) state((connected = now), problem);
  };
  for (;;) {
    const attempt = new AbortController();
    const either = AbortSignal.any([signal, attempt.signal]);
    let refusal = null;
    try {
      const response = await open(lastId, either);
      if (response.status === 204) return false;
      const parser = new EventParser(lastId);
      for await (const bytes of pieces(response, attempt)) {
        tell(true);
        for (const event of parser.push(bytes)) {
          tries = 0;
          if (on({ ...event, data: JSON.parse(event.data) })) return true;
        }
        lastId = parser.lastId;
        least = parser.retry ?? least;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Problem) {
        if (!error.passes) throw error;
        refusal = error;
      } else if (error.name !== "AbortError" && error.name !== "TypeError") {
        throw error; // a fault of ours, not of the network
      }
    } finally {
      attempt.abort();
    }
    signal.throwIfAborted();
    tell(false, refusal);
    await pause(Math.max(least, 100, (refusal?.retryAfter ?? 0) * 1000), tries++, signal);
  }
}

// pieces reads a body, and gives it up after too long a silence.
async function* pieces(response, attempt) {
  const reader = response.body.getReader();
  let timer;
  try {
    for (;;) {
      timer = setTimeout(() => attempt.abort(), silence);
      const { done, value } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      yield value;
    }
  } finally {
    clearTimeout(timer);
  }
}
