// log.js is where the messages of a chat stand. It keeps the end in view while
// the reader is there, and leaves a reader who is elsewhere in peace.

import { button, el } from "./dom.js";

const near = 48; // pixels from the end that count as being there

// A Log calls older when the reader comes to its beginning.
export class Log {
  constructor(older) {
    this.list = el("div", { class: "messages" });
    this.state = el("p", { class: "state", hidden: true });
    this.again = button({ label: "Show older messages", text: "Show older messages", class: "small older", hidden: true, click: older });
    this.inner = el("div", { class: "inner" }, this.again, this.list, this.state);
    this.scroller = el("div", { class: "scroller", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Messages" }, this.inner);
    this.jump = button({ label: "To the latest message", name: "down", class: "jump", hidden: true, click: () => this.toEnd() });
    this.live = el("p", { class: "unseen", role: "status" });
    this.element = el("div", { class: "log" }, this.scroller, this.jump, this.live);
    this.scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    const grown = new ResizeObserver(() => (this.#atEnd ? this.#stick() : this.#look()));
    grown.observe(this.inner);
    grown.observe(this.scroller);
  }

  #atEnd = true;

  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.#atEnd = scrollHeight - scrollTop - clientHeight < near;
    this.jump.hidden = this.#atEnd;
  }

  #stick() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  toEnd() {
    this.#atEnd = true;
    this.jump.hidden = true;
    this.#stick();
  }

  add(element) {
    this.tell("");
    this.list.querySelector(".welcome")?.remove();
    this.list.append(element);
  }

  // before puts older messages above, and what the reader sees stays where it is.
  before(elements) {
    const height = this.scroller.scrollHeight;
    const top = this.scroller.scrollTop;
    this.list.prepend(...elements);
    this.scroller.scrollTop = top + this.scroller.scrollHeight - height;
  }

  clear() {
    this.list.replaceChildren();
    this.tell("");
  }

  more(there) {
    this.again.hidden = !there;
  }

  busy(loading) {
    this.scroller.setAttribute("aria-busy", String(loading));
    this.element.classList.toggle("loading", loading);
  }

  // tell shows a sentence below the messages, or none.
  tell(sentence, ...more) {
    this.state.replaceChildren(sentence, ...more);
    this.state.hidden = sentence === "";
  }

  // announce has a reply read aloud to who does not see it, once it is whole.
  announce(text) {
    this.live.textContent = text.length > 1500 ? "The reply is complete." : `Reply: ${text}`;
  }

  welcome(name) {
    this.list.append(el("div", { class: "welcome" }, el("h2", { dir: "auto" }, `Hello, ${name}.`), el("p", {}, "What would you like to talk about?")));
  }
}
