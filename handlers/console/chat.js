// chat.js is one chat as it is seen: its messages, the replies that run there, and
// what the user does. Each reply that this page asked for, or found running, is
// followed by its own stream; those of other devices come by the feed.

import { newKey, patiently } from "./api.js";
import { Composer } from "./composer.js";
import { el, say } from "./dom.js";
import { follow } from "./follow.js";
import { copy, Message } from "./message.js";
import { Log } from "./log.js";

// A Chat shows the chat with that id, or a new one. app has the session, the voice,
// the drafts, and hears of a chat that has begun by begun(id, title).
export class Chat {
  constructor(app, id) {
    this.app = app;
    this.session = app.session;
    this.id = id;
    this.messages = new Map(); // by id
    this.asked = null; // the reply that was asked for, until it has an id
    this.closed = new AbortController();
    this.log = new Log(() => this.older());
    this.composer = new Composer({
      send: (text) => this.send(text),
      stop: () => this.stop(),
      record: () => this.app.voice.record(this, this.composer),
    });
    this.composer.value = app.drafts.get(id) ?? "";
    this.element = el("section", { class: "chat", "aria-label": "Chat" }, this.log.element, this.composer.element);
    this.log.element.addEventListener("click", (event) => copy(event.target, this.messages.values()));
    this.acts = {
      edit: (message, text) => this.edit(message, text),
      regenerate: (message) => this.regenerate(message),
      speak: (message) => this.app.voice.speak(message),
    };
    if (id) this.load();
    else this.log.welcome(this.session.user.user_name);
  }

  #held = null; // what the feed told while the messages were being read
  #cursor = null; // leads to older messages
  #stale = false; // they are to be read again

  close() {
    this.app.drafts.set(this.id, this.composer.value);
    this.closed.abort(new DOMException("The chat is closed.", "AbortError"));
    // A send that was not answered yet goes on until it is.
    for (const message of this.messages.values()) message.control.abort(this.closed.signal.reason);
  }

  // load shows the latest messages, as they are stored, and follows a reply that
  // runs.
  async load() {
    this.#stale = this.#held !== null || this.asked !== null; // a message on its way would not be among them
    if (this.#stale) return;
    this.#held = [];
    this.log.busy(true);
    try {
      const chat = await patiently(() => this.session.json("GET", `chats/${this.id}?limit=40`, undefined, { signal: this.closed.signal }), {
        signal: this.closed.signal,
        waiting: (problem) => this.log.tell(`${problem.message} This page keeps trying …`),
      });
      for (const message of this.messages.values()) message.remove();
      this.messages.clear();
      this.log.clear();
      this.#cursor = chat.next_cursor ?? null;
      this.app.titled(chat);
      for (const message of chat.messages) this.log.add(this.#show(message).element);
      this.log.more(this.#cursor !== null);
      this.log.toEnd();
      for (const message of chat.messages) if (message.status === "streaming") this.#follow(this.messages.get(message.id));
    } catch (problem) {
      if (!this.closed.signal.aborted) this.log.tell(problem.status === 404 || problem.status === 403 ? "There is no such chat." : problem.message);
      if (problem.status === 404 || problem.status === 403) this.composer.disable();
    } finally {
      this.log.busy(false);
      const held = this.#held;
      this.#held = null;
      for (const event of held) this.hear(event);
      this.#settle();
      this.#again();
    }
  }

  async older() {
    const cursor = this.#cursor;
    if (!cursor) return;
    this.#cursor = null;
    try {
      const page = await this.session.json("GET", `chats/${this.id}/messages?limit=40&cursor=${encodeURIComponent(cursor)}`, undefined, { signal: this.closed.signal });
      this.#cursor = page.next_cursor ?? null;
      this.log.before(page.messages.filter((message) => !this.messages.has(message.id)).map((message) => this.#show(message).element));
    } catch (problem) {
      if (this.closed.signal.aborted) return;
      this.#cursor = cursor;
      say(problem.message);
    }
    this.log.more(this.#cursor !== null);
  }

  // #show makes the message, and remembers it if it has an id.
  #show(message) {
    const shown = new Message(message, this.acts);
    if (message.id) this.messages.set(message.id, shown);
    return shown;
  }

  #add(message) {
    const shown = this.#show(message);
    this.log.add(shown.element);
    this.#settle();
    return shown;
  }

  get running() {
    return this.asked ?? [...this.messages.values()].find((message) => message.running) ?? null;
  }

  // #settle has the composer show whether a reply runs.
  #settle() {
    this.composer.answering(this.running !== null);
  }

  send(text) {
    const path = this.id ? `chats/${this.id}/messages` : "messages";
    return this.#ask({ path, body: { message: text }, said: { role: "user", content: text }, refused: () => this.app.giveBack(this.id, text) });
  }

  // hearken sends a recording that has arrived, and gives what is told of the
  // reply to hear as well. It returns the error if the recording came to nothing.
  hearken(uploadId, hear) {
    return this.#ask({ path: `voice/uploads/${uploadId}/complete?audio=chunks`, body: {}, spoken: true, hear });
  }

  // edit returns whether the message is on its way.
  edit(message, text) {
    if (this.#waits()) return false;
    this.#dropAfter(message.id);
    message.setText(text);
    this.#ask({ path: `messages/${message.id}/edit`, body: { message: text }, refused: () => this.messages.get(message.id)?.edit(text) });
    return true;
  }

  regenerate(message) {
    if (this.#waits() || !message.id) return;
    this.#dropAfter(message.id - 1);
    this.#ask({ path: `messages/${message.id}/regenerate`, body: {} });
  }

  #waits() {
    if (this.running) say("Wait for the end of the reply, or stop it.");
    return this.running !== null;
  }

  #dropAfter(id) {
    for (const [other, message] of this.messages) {
      if (other > id) {
        message.remove();
        this.messages.delete(other);
      }
    }
  }

  // #ask sends what begins a reply, and follows that. Nothing is lost on the way:
  // the key makes it safe to send again for as long as no answer comes. A message
  // that was refused goes back to where it was written.
  async #ask({ path, body, said, refused = () => {}, spoken = false, hear = () => {} }) {
    const key = newKey();
    const timestamp = new Date().toISOString();
    const turn = { mine: said && this.#add({ ...said, timestamp }), reply: this.#add({ role: "assistant", status: "streaming", timestamp }), spoken, hear };
    const { reply } = turn;
    this.asked = reply;
    this.#settle();
    this.composer.focus();
    this.log.toEnd();
    turn.post = (signal) => this.session.ask("POST", path, { body, signal, headers: { Accept: "text/event-stream", "Idempotency-Key": key } });
    try {
      await this.#listen(turn);
      if (turn.failed) this.#withdraw(turn);
      return turn.failed;
    } catch (problem) {
      if (this.session.ended.aborted) return;
      if (reply.id) {
        this.#lost(reply, problem);
        return;
      }
      this.#withdraw(turn);
      if (!reply.control.signal.aborted) say(problem.message);
      this.asked = null;
      this.#stale = this.id !== null; // somebody else's reply may be in the way
      await this.#again();
      refused();
    } finally {
      if (this.asked === reply) this.asked = null;
      this.#settle();
      this.#again();
    }
  }

  // #again reads what could not be read at its time.
  async #again() {
    if (this.#stale && !this.closed.signal.aborted) await this.load();
  }

  // #withdraw takes away what was shown of a turn that there is not.
  #withdraw({ mine, reply }) {
    mine?.remove();
    reply.remove();
  }

  // #follow stays with a reply that is known.
  async #follow(reply) {
    try {
      await this.#listen({ reply });
    } catch (problem) {
      if (!this.session.ended.aborted) this.#lost(reply, problem);
    } finally {
      this.#settle();
    }
  }

  #lost(reply, problem) {
    if (reply.control.signal.aborted) return;
    if (problem.status !== 404) {
      reply.fail(problem.message, false);
      return;
    }
    reply.remove(); // somebody deleted it
    this.messages.delete(reply.id);
  }

  // #listen follows a reply to its end: by what asks for it, as long as it has no
  // id, and then by its stream.
  async #listen(turn) {
    const { reply } = turn;
    reply.own = true;
    const stream = (last, signal) => this.session.ask("GET", `messages/${reply.id}/stream?audio=chunks`, { signal, headers: last ? { "Last-Event-ID": last } : {} });
    const options = {
      open: (last, signal) => (reply.id ? stream(last, signal) : turn.post(signal)),
      on: (event) => this.#hearTurn(turn, event),
      state: (connected, problem) => reply.running && reply.say(connected ? "" : `${problem?.message ?? "The connection is lost."} This page keeps trying …`),
      signal: AbortSignal.any([reply.control.signal, this.session.ended]),
    };
    let ended;
    try {
      ended = await follow(options);
    } catch (problem) {
      if (problem.code !== "invalid_last_event_id") throw problem;
      reply.setText("");
      ended = await follow(options);
    }
    if (!ended) {
      const stored = await patiently(() => this.session.json("GET", `messages/${reply.id}`));
      reply.finish(stored.status, stored.content);
    }
  }

  // #hearTurn takes an event of a stream of its own, and returns true if it is the
  // last that matters.
  #hearTurn(turn, event) {
    const { reply, spoken } = turn;
    const { type, data } = event;
    turn.hear?.(event, reply);
    switch (type) {
      case "message_start":
        reply.setText(""); // the stream begins at the beginning
        this.#start(turn, data);
        if (reply.unwanted) this.stop(reply);
        return this.closed.signal.aborted;
      case "voice_processing":
        if (spoken && reply.text === "") reply.say(data.status === "transcribing" ? "Listening …" : "Thinking …");
        return false;
      case "voice_transcribed":
        if (!spoken || turn.mine) return false;
        turn.mine = this.#show({ role: "user", content: data.text, timestamp: new Date().toISOString() });
        reply.element.before(turn.mine.element);
        return false;
      case "voice_response":
        return spoken;
      case "error":
        if (reply.id || data.code === "signed_out") break;
        turn.failed = data; // the recording came to nothing
        return true;
    }
    const last = this.#take(reply, event);
    return last && !(spoken && type === "message_complete");
  }

  // #start gives what was sent its ids.
  #start({ mine, reply }, start) {
    if (reply.id) return;
    const begun = this.id === null;
    for (const [message, id] of [[reply, start.message_id], [mine, start.user_message_id]]) {
      if (!message) continue;
      this.messages.get(id)?.remove();
      message.id = id;
      message.told = false;
      this.messages.set(id, message);
    }
    this.asked = null;
    if (begun) {
      this.id = start.chat_id;
      this.app.begun(this, start.title);
    }
  }

  // #take shows what an event tells of the reply, and returns true if it is the
  // last one.
  #take(reply, { type, data }) {
    switch (type) {
      case "message_token":
        if (reply.text === "") reply.say("");
        reply.add(data.text);
        return false;
      case "message_reset":
        reply.setText("");
        return false;
      case "message_complete":
      case "message_stopped":
        reply.finish(type === "message_complete" ? "complete" : "stopped", data.full_text);
        this.log.announce(reply.text);
        break;
      case "error":
        if (data.code === "signed_out") {
          this.session.renew().catch(() => {});
          return false;
        }
        if (data.code === "voice_failed") say(data.message); // the text is whole
        else reply.fail(data.message, data.retryable);
        break;
      default:
        return false;
    }
    this.#settle();
    return true;
  }

  async stop(reply = this.running) {
    if (!reply) return;
    if (!reply.id) {
      if (reply.unwanted) reply.control.abort(); // no answer comes
      reply.unwanted = true; // the server may have it; its answer tells what to stop
      reply.say("Stopping …");
      return;
    }
    try {
      const stored = await patiently(() => this.session.json("POST", `messages/${reply.id}/stop`), { tries: 4 });
      if (!reply.own) reply.finish(stored.status, stored.content);
    } catch (problem) {
      if (!this.session.ended.aborted) say(problem.message);
    }
    this.#settle();
  }

  // hear takes an event of the feed.
  hear(event) {
    if (this.closed.signal.aborted) return;
    if (this.#held) {
      this.#held.push(event);
      return;
    }
    const { type, data } = event;
    if (data.chat_id === this.id && this.id) this.#hearChat(type, data);
    const reply = this.messages.get(data.message_id);
    if (reply && !reply.own && reply.running) this.#take(reply, event);
  }

  #hearChat(type, data) {
    const known = this.messages.get(data.message_id ?? data.id);
    switch (type) {
      case "message_created":
      case "message_start":
        if (known) {
          known.told = true;
          if (type === "message_start" && !known.own) known.setText("");
        }
        else if (this.asked) return; // most likely what was asked; its answer tells
        else if (type === "message_created") this.#add(data);
        else this.#add({ id: data.message_id, role: "assistant", status: "streaming" });
        break;
      case "message_updated":
        known?.setText(data.content);
        break;
      case "messages_deleted":
        // What this page began since then is not among them.
        for (const message of this.messages.values()) {
          if (message.id > (data.after_message_id ?? 0) && message.told) {
            message.remove();
            this.messages.delete(message.id);
          }
        }
        this.#settle();
    }
  }
}
