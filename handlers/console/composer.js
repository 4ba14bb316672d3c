// composer.js is where a message is written.

import { button, el } from "./dom.js";

const touch = matchMedia("(pointer: coarse)");

// sends tells whether a key sends what is written. On a touch screen there is no
// Shift to make a new line with, and what ends a composed character ends no more.
export function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch.matches;
}

// A Composer calls send(text), stop() and record().
export class Composer {
  constructor({ send, stop, record }) {
    this.field = el("textarea", { id: "message", rows: "1", placeholder: "Write a message", "aria-label": "Message", maxlength: 64_000, enterkeyhint: touch.matches ? "enter" : "send" });
    this.sending = el("button", { class: "round primary send", "aria-label": "Send", title: "Send" });
    this.stopping = button({ label: "Stop the reply", name: "stop", class: "round primary stop", hidden: true, click: stop });
    this.recording = button({ label: "Speak", name: "mic", class: "round quiet record", click: record });
    this.sending.append(button({ name: "send", label: "" }).firstChild);
    this.bar = el("div", { class: "recording", hidden: true });
    this.element = el(
      "form",
      { class: "composer", "aria-label": "New message", submit: (event) => {
        event.preventDefault();
        this.#submit(send);
      } },
      el("div", { class: "box" }, this.field, this.bar, this.recording, this.sending, this.stopping),
    );
    this.field.addEventListener("input", () => this.#fit());
    this.field.addEventListener("keydown", (event) => {
      if (!sends(event)) return;
      event.preventDefault();
      this.element.requestSubmit();
    });
    this.#fit();
  }

  #answering = false;

  get value() {
    return this.field.value;
  }

  set value(text) {
    this.field.value = text;
    this.#fit();
  }

  #submit(send) {
    const text = this.field.value;
    if (this.#answering || text.trim() === "" || this.field.disabled) return;
    this.value = "";
    send(text);
  }

  #fit() {
    this.field.style.height = "auto";
    if (this.field.scrollHeight) this.field.style.height = `${this.field.scrollHeight}px`;
    this.sending.disabled = this.field.value.trim() === "";
  }

  // answering shows that a reply runs: the next message waits for its end.
  answering(running) {
    this.#answering = running;
    if ((running ? this.sending : this.stopping).contains(document.activeElement)) this.focus(); // that one goes
    this.sending.hidden = running;
    this.stopping.hidden = !running;
    this.recording.disabled = running;
  }

  disable() {
    for (const control of [this.field, this.sending, this.recording]) control.disabled = true;
  }

  // listening shows what there is to do with a recording, or, without, the field
  // again.
  listening(...controls) {
    this.bar.replaceChildren(...controls);
    this.bar.hidden = controls.length === 0;
    for (const part of [this.field, this.recording, this.sending]) part.hidden = controls.length > 0;
  }

  focus() {
    if (!touch.matches) this.field.focus();
    this.#fit();
  }
}
