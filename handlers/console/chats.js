// chats.js is the list of chats: the latest activity first, page by page, and
// searched. The feed keeps it as it is on the server.

import { patiently } from "./api.js";
import { button, el, icon, say } from "./dom.js";

const byActivity = (chat) => chat.last_message_time ?? chat.created_at;

// A ChatList is the list. The chat that is open is marked by open(id).
export class ChatList {
  constructor(session) {
    this.session = session;
    this.list = el("ul", { class: "chats" });
    this.empty = el("p", { class: "state", hidden: true });
    this.more = button({ label: "Show more", text: "Show more", class: "small", hidden: true, click: () => this.#page() });
    this.field = el("input", { type: "search", placeholder: "Search", "aria-label": "Search chats", autocomplete: "off", maxlength: "200" });
    this.field.addEventListener("input", () => {
      clearTimeout(this.#typing);
      this.#typing = setTimeout(() => this.load(), 250);
    });
    this.scroller = el("nav", { "aria-label": "Chats" }, this.list, this.empty, this.more);
    this.element = el("div", { class: "list" }, el("label", { class: "search" }, icon("search"), this.field), this.scroller);
    new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.#page(), { root: this.scroller, rootMargin: "200px" }).observe(this.more);
  }

  #rows = new Map(); // by id: {chat, element, link}
  #shown = new WeakMap(); // and by element
  #running = new Map(); // of replies the chats
  #cursor = null;
  #typing = 0;
  #reading = null; // aborts the search before
  #current = null;

  get query() {
    return this.field.value.trim();
  }

  async load() {
    this.#reading?.abort();
    const reading = (this.#reading = new AbortController());
    const path = this.query ? `chats?limit=50&q=${encodeURIComponent(this.query)}` : "chats?limit=50";
    try {
      const page = await patiently(() => this.session.json("GET", path, undefined, { signal: reading.signal }), { signal: AbortSignal.any([reading.signal, this.session.ended]) });
      this.#rows.clear();
      this.list.replaceChildren();
      this.#show(page);
    } catch (problem) {
      if (!reading.signal.aborted && !this.session.ended.aborted) say(problem.message);
    }
  }

  async #page() {
    const cursor = this.#cursor;
    const reading = this.#reading;
    if (!cursor) return;
    this.#cursor = null;
    const query = this.query ? `&q=${encodeURIComponent(this.query)}` : "";
    try {
      const page = await this.session.json("GET", `chats?limit=50&cursor=${encodeURIComponent(cursor)}${query}`, undefined, { signal: reading.signal });
      this.#show(page);
    } catch (problem) {
      if (reading.signal.aborted) return;
      this.#cursor = cursor;
    }
  }

  #show(page) {
    for (const chat of page.chats) this.#put(chat);
    this.#cursor = page.next_cursor ?? null;
    this.more.hidden = this.#cursor === null;
    this.#settle();
  }

  #settle() {
    this.empty.hidden = this.#rows.size > 0;
    this.empty.textContent = this.query ? "Nothing was found." : "No chats yet.";
  }

  // #put shows a chat as it is, below the others if it is not among them.
  #put(chat) {
    let row = this.#rows.get(chat.id);
    if (!row) {
      const link = el("a", { href: `#/chats/${chat.id}` });
      row = { element: el("li", {}, link), link };
      this.#rows.set(chat.id, row);
      this.#shown.set(row.element, row);
      this.list.append(row.element);
    }
    row.chat = chat;
    row.link.replaceChildren(el("span", { dir: "auto" }, chat.title));
    row.link.title = chat.title;
    if (chat.id === this.#current) row.link.setAttribute("aria-current", "page");
    this.#dot(chat.id);
    return row;
  }

  // #place moves a row to where its chat belongs, which is mostly the top.
  #place(row) {
    const key = byActivity(row.chat);
    let next = this.list.firstElementChild;
    for (; next; next = next.nextElementSibling) {
      const other = this.#shown.get(next);
      if (other !== row && (byActivity(other.chat) < key || (byActivity(other.chat) === key && other.chat.id < row.chat.id))) break;
    }
    if (row.element.nextElementSibling !== next) this.list.insertBefore(row.element, next);
  }

  #dot(id) {
    this.#rows.get(id)?.element.classList.toggle("running", [...this.#running.values()].includes(id));
  }

  title(id) {
    return this.#rows.get(id)?.chat.title;
  }

  // open marks the chat that is shown.
  open(id) {
    this.#rows.get(this.#current)?.link.removeAttribute("aria-current");
    this.#current = id;
    this.#rows.get(id)?.link.setAttribute("aria-current", "page");
  }

  // hear takes an event of the feed.
  hear({ type, data }) {
    switch (type) {
      case "chat_created":
      case "chat_updated": {
        if (this.query && !this.#rows.has(data.id)) return;
        const oldest = this.#shown.get(this.list.lastElementChild)?.chat;
        if (!this.#rows.has(data.id) && this.#cursor && oldest && byActivity(data) < byActivity(oldest)) return; // further down
        const row = this.#put(data);
        if (!this.query) this.#place(row); // what was found stays where it was found
        this.#settle();
        return;
      }
      case "chat_deleted":
        this.#rows.get(data.chat_id)?.element.remove();
        this.#rows.delete(data.chat_id);
        this.#settle();
        return;
      case "message_start":
        this.#running.set(data.message_id, data.chat_id);
        this.#dot(data.chat_id);
        return;
      case "message_complete":
      case "message_stopped":
      case "error": {
        const chat = this.#running.get(data.message_id);
        this.#running.delete(data.message_id);
        this.#dot(chat);
      }
    }
  }
}
