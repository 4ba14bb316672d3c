// message.js shows one message: its text, how it goes, and what can be done with
// it. It asks nothing of the server; the chat does.

import { sends } from "./composer.js";
import { append, button, el, icon, time } from "./dom.js";
import { Markdown } from "./markdown.js";

// A Message is a message of the user, or a reply. acts are what its buttons call:
// edit(message, text), regenerate(message), speak(message).
export class Message {
  constructor({ id = null, role, content = "", status = "complete", timestamp }, acts) {
    this.id = id;
    this.role = role;
    this.text = "";
    this.acts = acts;
    this.control = new AbortController(); // ends what follows it
    this.own = false; // followed by a stream of its own; the feed has nothing to add
    this.told = true; // the feed has come to it
    this.unwanted = false; // to be stopped as soon as it has an id
    const mine = role === "user";
    this.body = el("div", { class: "body", dir: "auto" });
    this.note = el("p", { class: "note", hidden: true });
    this.tools = el("div", { class: "tools" });
    this.element = el(
      "article",
      { class: `message ${role}`, "aria-label": mine ? "You" : "Reply" },
      this.body,
      this.note,
      this.tools,
    );
    if (!mine) this.markdown = new Markdown(this.body);
    this.#equip(timestamp);
    this.setStatus(status);
    this.setText(content);
  }

  #drawn = 0; // the frame that is asked for
  #rested = 0; // when it may be drawn again

  #equip(timestamp) {
    const copy = button({ label: "Copy", name: "copy", class: "quiet", "data-copy": "message" });
    const edit = this.role === "user" && button({ label: "Edit", name: "edit", class: "quiet", "data-act": "edit", click: () => this.edit() });
    const again =
      this.role === "assistant" && button({ label: "Write again", name: "again", class: "quiet again", "data-act": "regenerate", click: () => this.acts.regenerate(this) });
    this.speaker = button({ label: "Read aloud", name: "sound", class: "quiet speak", "data-act": "speak", click: () => this.acts.speak(this) });
    append(this.tools, [copy, edit, again, this.role === "assistant" && this.speaker, timestamp && time(timestamp)]);
  }

  get running() {
    return this.status === "streaming";
  }

  // setText shows the whole text so far: at once when it is complete, else with
  // the next frame, and then not so often that the page has no time for others.
  setText(text) {
    this.text = text;
    if (!this.running) {
      cancelAnimationFrame(this.#drawn);
      this.#drawn = 0;
      this.#draw();
    } else if (!this.#drawn) {
      this.#drawn = requestAnimationFrame(() => this.#frame());
    }
  }

  #frame() {
    if (performance.now() < this.#rested) {
      this.#drawn = requestAnimationFrame(() => this.#frame());
      return;
    }
    this.#drawn = 0;
    this.#draw();
  }

  #draw() {
    const began = performance.now();
    if (this.markdown) this.markdown.set(this.text);
    else this.body.textContent = this.text;
    this.#rested = Infinity;
    setTimeout(() => { // after the layout, which may take longer than the rest
      const now = performance.now();
      this.#rested = now + 4 * (now - began);
    });
  }

  add(text) {
    this.setText(this.text + text);
  }

  setStatus(status) {
    this.status = status;
    this.element.dataset.status = status;
    this.element.setAttribute("aria-busy", String(this.running));
    if (status === "failed") this.fail("This reply broke off.", true);
    else this.say(status === "stopped" ? "Stopped." : "");
  }

  // finish shows the message as it is stored.
  finish(status, text) {
    this.setStatus(status);
    this.setText(text);
  }

  // say shows a sentence about the message, or none.
  say(sentence, ...more) {
    this.note.replaceChildren(sentence, ...more);
    this.note.hidden = sentence === "";
    this.note.classList.remove("bad");
  }

  fail(sentence, retryable) {
    this.status = this.element.dataset.status = "failed";
    this.element.setAttribute("aria-busy", "false");
    const again = retryable && button({ label: "Try again", name: "again", text: "Try again", class: "small", "data-act": "retry", click: () => this.acts.regenerate(this) });
    this.say(sentence, ...(again ? [" ", again] : []));
    this.note.classList.add("bad");
    this.setText(this.text);
  }

  // edit has the user change the text, from what it is or has been changed to.
  edit(text = this.text) {
    if (this.element.querySelector("form")) return;
    const field = el("textarea", { "aria-label": "Your message", rows: Math.min(12, text.split("\n").length + 1), maxlength: 64_000 });
    field.value = text;
    const form = el(
      "form",
      { class: "editing", submit: (event) => {
        event.preventDefault();
        if (field.value.trim() !== "" && this.acts.edit(this, field.value)) close();
      } },
      field,
      el("div", { class: "row" }, button({ text: "Cancel", click: () => cancel() }), el("button", { class: "primary" }, "Send")),
    );
    const close = () => {
      form.remove();
      this.element.classList.remove("edited");
    };
    const cancel = () => {
      close();
      this.tools.querySelector("[data-act=edit]").focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") cancel();
      if (!sends(event)) return;
      event.preventDefault();
      form.requestSubmit();
    });
    this.element.classList.add("edited");
    this.body.after(form);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  remove() {
    this.control.abort();
    cancelAnimationFrame(this.#drawn);
    this.element.remove();
  }
}

// copy puts on the clipboard what the button belongs to that was pressed, a block of
// code or one of the messages, and shows on the button that it is there.
export async function copy(target, messages) {
  const pressed = target.closest("[data-copy]");
  if (!pressed) return;
  const code = pressed.closest(".code")?.querySelector("code").textContent;
  const message = [...messages].find((one) => one.element.contains(pressed));
  try {
    await navigator.clipboard.writeText(code ?? message.text);
  } catch {
    return; // there is no clipboard without https, or the user said no
  }
  const drawing = pressed.querySelector("svg");
  const done = icon("check");
  drawing.replaceWith(done);
  setTimeout(() => done.replaceWith(drawing), 1500);
}
