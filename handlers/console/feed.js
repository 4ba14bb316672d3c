// feed.js hears what happens to the user on any device (GET /events) and tells it
// as it comes.

import { follow } from "./follow.js";

// A page that nobody sees gives its place back: a browser keeps no more than six
// connections to one server, over all of its tabs. The feed resumes where it was.
const unseen = 10_000;

// listen tells every event of the feed to on(event), until the session ends. The
// event "resync" says that some were missed. state(connected) tells how it goes.
export async function listen(session, on, state) {
  let last = "";
  const hear = (event) => {
    last = event.id;
    if (event.type === "error" && event.data.code === "signed_out") session.renew().catch(() => {});
    else on(event);
  };
  while (!session.ended.aborted) {
    await seen(session.ended);
    const hidden = new AbortController();
    const watch = whileSeen(hidden);
    const signal = AbortSignal.any([session.ended, hidden.signal]);
    const open = (lastId, either) => session.ask("GET", "events", { signal: either, headers: lastId ? { "Last-Event-ID": lastId } : {} });
    try {
      await follow({ open, on: hear, state, signal, lastId: last });
    } catch (problem) {
      if (session.ended.aborted) return;
      if (problem.code === "invalid_last_event_id") {
        last = ""; // the database is another one, or an older one
        on({ type: "resync", data: {} });
      } else if (!hidden.signal.aborted) {
        state(false, problem);
        throw problem;
      }
    } finally {
      watch.abort();
    }
  }
}

// seen waits until the page is visible.
function seen(signal) {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) resolve();
    signal.addEventListener("abort", resolve, { once: true });
    document.addEventListener("visibilitychange", function look() {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    });
  });
}

// whileSeen aborts hidden when the page has not been visible for a while.
function whileSeen(hidden) {
  const watch = new AbortController();
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => hidden.abort(), unseen);
  };
  document.addEventListener("visibilitychange", look, { signal: watch.signal });
  watch.signal.addEventListener("abort", () => clearTimeout(timer));
  look();
  return watch;
}
