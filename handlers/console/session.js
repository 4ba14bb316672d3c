// session.js is who is signed in. The access token lives in this page alone; the
// refresh token, which must survive a reload, in localStorage, where all tabs
// share it. Only the server's word ends a session: a network that is gone or a
// replica that is busy never does.

import { ask, patiently, Problem, read } from "./api.js";

const key = "parley.session";

// stored is what the tabs share: {user, refresh_token}, or null.
export function stored() {
  try {
    const session = JSON.parse(localStorage.getItem(key));
    return session?.refresh_token && session.user ? session : null;
  } catch {
    return null;
  }
}

function store(session) {
  localStorage.setItem(key, JSON.stringify(session));
}

// same tells whether it is one account: ids begin anew when all users are deleted.
const same = (one, other) => one.id === other.id && one.created_at === other.created_at;

// alone runs act in one tab at a time. Where there are no locks (no https), the
// server's grace does: tabs that refresh together get the same successor.
function alone(act) {
  return navigator.locks ? navigator.locks.request("parley.refresh", act) : act();
}

// begin signs in or up, and returns the Session.
export async function begin(path, body) {
  const answer = await read(await ask("POST", path, { body }));
  store({ user: answer.user, refresh_token: answer.refresh_token });
  return new Session(answer.user, answer);
}

// A Session is one page's part in the device session. It tells about its end by
// the event "ended", and of a changed account by "user".
export class Session extends EventTarget {
  #access = null; // {token, fresh: until when it need not be exchanged}
  #renewing = null;
  #over = new AbortController();

  constructor(user, tokens) {
    super();
    this.user = user;
    if (tokens) this.#take(tokens);
    addEventListener("storage", (event) => this.#follow(event), { signal: this.#over.signal });
    addEventListener("pageshow", (event) => event.persisted && this.#follow({ key }), { signal: this.#over.signal }); // it was laid aside, and heard nothing
  }

  // ended aborts what belongs to the session.
  get ended() {
    return this.#over.signal;
  }

  #take(tokens) {
    // A token is exchanged when four fifths of its time are over.
    this.#access = { token: tokens.access_token, fresh: Date.now() + tokens.expires_in * 800 };
  }

  // #follow hears what other tabs do: sign out, or in as somebody else.
  #follow(event) {
    if (event.key !== key && event.key !== null) return;
    const session = stored();
    if (!session || !same(session.user, this.user)) this.#end("You signed out in another window.");
    else this.setUser(session.user, false);
  }

  #end(why) {
    if (this.#over.signal.aborted) return;
    this.#access = null;
    this.#over.abort(new DOMException("The session has ended.", "AbortError"));
    this.dispatchEvent(new CustomEvent("ended", { detail: why }));
  }

  // reread learns what has become of the account elsewhere.
  async reread() {
    try {
      const user = await this.json("GET", "user/profile");
      if (JSON.stringify(user) !== JSON.stringify(this.user)) this.setUser(user);
    } catch {
      // it is only less new
    }
  }

  setUser(user, tell = true) {
    this.user = user;
    const session = stored();
    if (tell && session) store({ ...session, user });
    this.dispatchEvent(new Event("user"));
  }

  // renew exchanges the refresh token, whichever tab got it last.
  renew() {
    this.#renewing ??= alone(() => this.#exchange()).finally(() => (this.#renewing = null));
    return this.#renewing;
  }

  async #exchange() {
    const session = stored();
    if (!session || !same(session.user, this.user) || this.ended.aborted) {
      this.#end("You signed out in another window.");
      throw this.ended.reason;
    }
    try {
      const signal = AbortSignal.any([this.ended, AbortSignal.timeout(20_000)]);
      const answer = await ask("POST", "auth/refresh", { body: { refresh_token: session.refresh_token }, signal });
      const tokens = await read(answer, signal);
      const current = stored(); // another tab may have signed out meanwhile
      if (!current || !same(current.user, this.user)) {
        this.#end("You signed out in another window.");
        throw this.ended.reason;
      }
      store({ user: current.user, refresh_token: tokens.refresh_token });
      this.#take(tokens);
    } catch (problem) {
      if (problem.name === "TimeoutError") throw new Problem(0);
      if (["invalid_refresh_token", "refresh_token_reused"].includes(problem.code)) {
        if (stored() && stored().refresh_token !== session.refresh_token) return this.#exchange(); // another tab was first
        localStorage.removeItem(key);
        this.#end(problem.code === "refresh_token_reused" ? problem.message : "You were signed out. Sign in again.");
      }
      throw problem;
    }
  }

  // ask sends a request of this user's. A token that was refused is exchanged
  // once; what is refused then is refused.
  async ask(method, path, options = {}) {
    const signal = options.signal ? AbortSignal.any([this.ended, options.signal]) : this.ended;
    signal.throwIfAborted();
    if (!this.#access || Date.now() > this.#access.fresh) await this.renew();
    const token = this.#access.token;
    try {
      return await ask(method, path, { ...options, signal, token });
    } catch (problem) {
      if (problem.status !== 401 || !["invalid_token", "missing_token"].includes(problem.code)) throw problem;
      if (this.#access?.token === token) await this.renew();
      signal.throwIfAborted();
      return ask(method, path, { ...options, signal, token: this.#access.token });
    }
  }

  async json(method, path, body, options = {}) {
    const response = await this.ask(method, path, { body, ...options });
    return response.status === 204 ? null : read(response, options.signal ?? this.ended);
  }

  // signOut ends the device session. A server that cannot be reached keeps nobody
  // signed in here: the page does not wait for it.
  signOut() {
    const body = { refresh_token: stored()?.refresh_token };
    this.forget("You are signed out.");
    patiently(() => ask("POST", "auth/logout", { body }), { tries: 5 }).catch(() => {}); // the session expires
  }

  // signOutEverywhere ends all device sessions of the user.
  async signOutEverywhere() {
    await this.json("POST", "auth/logout-all", {});
    this.forget("You are signed out.");
  }

  // forget ends the session here and in the other tabs.
  forget(why) {
    localStorage.removeItem(key);
    this.#end(why);
  }
}
