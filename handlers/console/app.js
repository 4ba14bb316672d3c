// app.js is the page of somebody who is signed in: the chats at the side, and what
// the address names beside them.

import { account } from "./account.js";
import { admin } from "./admin.js";
import { Chat } from "./chat.js";
import { ChatList } from "./chats.js";
import { button, el, icon, save, say } from "./dom.js";
import { listen } from "./feed.js";
import { confirm, dialog, field, form, trying } from "./forms.js";
import { Voice } from "./voice.js";

// menu is gone before what was chosen is done: a dialog gives the focus back to
// where it was when it came.
function menu(id, ...choices) {
  const element = el("div", { class: "menu", popover: true, id }, ...choices);
  element.addEventListener("click", () => element.hidePopover(), true);
  return element;
}

// An App shows itself in place until the session ends.
export class App {
  constructor(place, session) {
    this.session = session;
    this.voice = new Voice(session);
    this.drafts = new Map(); // by chat; of the new one under null
    this.chats = new ChatList(session);
    this.view = null; // the Chat that is shown, if one is
    place.replaceChildren(this.#shell());
    const options = { signal: session.ended };
    addEventListener("hashchange", () => this.#route(), options);
    addEventListener("keydown", (event) => this.#key(event), options);
    session.addEventListener("user", () => this.#whose());
    session.ended.addEventListener("abort", () => {
      clearTimeout(this.#late);
      this.view?.close();
    });
    this.#whose();
    this.#listen();
    // What is read before the feed is there may be old by then.
    setTimeout(() => this.#reading || session.ended.aborted || this.#read(), 800);
  }

  #late = 0; // a timer of what is said if the feed is not back soon
  #reading = false;

  // #read shows what the server has, from the beginning, or once more.
  #read() {
    this.session.reread();
    this.chats.load();
    if (!this.#reading) this.#route();
    else if (this.view?.id) this.view.load();
    this.#reading = true;
  }

  #shell() {
    this.title = el("h1", { dir: "auto" });
    this.connection = el("p", { class: "connection", role: "status", hidden: true });
    this.menu = menu("chat-menu",
      button({ text: "Rename", "data-act": "rename", click: () => this.#rename() }),
      button({ text: "Export as Markdown", click: () => this.#export("text/markdown", "md") }),
      button({ text: "Export as JSON", click: () => this.#export("application/json", "json") }),
      button({ text: "Delete", class: "danger", "data-act": "delete", click: () => this.#delete() }));
    this.opener = button({ label: "More about this chat", name: "more", class: "quiet", popovertarget: "chat-menu" });
    this.drawer = button({ label: "Show the list", name: "menu", class: "quiet narrow", "aria-controls": "side", click: () => this.#drawer(true) });
    this.main = el("main", { id: "main", tabindex: "-1" });
    this.name = el("span", { class: "name", dir: "auto" });
    this.adminLink = el("a", { href: "#/admin" }, icon("shield"), "Administration");
    this.user = menu("user-menu",
      el("a", { href: "#/account" }, icon("user"), "Account"),
      this.adminLink,
      el("a", { href: "docs", target: "_blank" }, icon("book"), "The API"),
      button({ text: "Sign out", name: "leave", "data-act": "sign-out", click: () => this.session.signOut() }));
    this.side = el("aside", { class: "side", id: "side", "aria-label": "Chats and account" },
      el("header", {}, el("a", { class: "brand", href: "#/" }, "Parley"), button({ label: "Close the list", name: "close", class: "quiet narrow", click: () => this.#drawer(false) })),
      el("a", { class: "new", href: "#/", click: () => this.#fresh() }, icon("plus"), "New chat"),
      this.chats.element,
      el("footer", {}, el("button", { type: "button", class: "who", popovertarget: "user-menu", "aria-label": "Account and more" }, icon("user"), this.name, icon("more"))));
    return el("div", { class: "shell" },
      el("a", { class: "skip", href: "#main", click: (event) => (event.preventDefault(), this.main.focus()) }, "To the content"),
      this.side,
      el("div", { class: "shade", click: () => this.#drawer(false) }),
      el("div", { class: "stage" },
        el("header", {}, this.drawer, this.title, this.connection, this.opener),
        this.main),
      this.menu,
      this.user);
  }

  #drawer(open) {
    const { classList } = document.documentElement;
    if (classList.contains("drawer") === open) return;
    classList.toggle("drawer", open);
    (open ? this.chats.field : this.drawer).focus();
  }

  #key(event) {
    if (event.key === "Escape") this.#drawer(false);
  }

  #whose() {
    this.name.textContent = this.session.user.user_name;
    this.adminLink.hidden = !this.session.user.is_admin;
  }

  // #fresh begins anew also where the address is that of a new chat already.
  #fresh() {
    if (["", "#/"].includes(location.hash)) this.#route();
  }

  // #route shows what the address names.
  #route() {
    this.#drawer(false);
    this.view?.close();
    this.view = null;
    const [, kind, id] = location.hash.split("/");
    const chat = kind === "chats" && /^[1-9][0-9]{0,15}$/.test(id) ? Number(id) : null;
    this.chats.open(chat);
    this.opener.hidden = chat === null;
    if (kind === "account" || kind === "admin") {
      this.#name(kind === "account" ? "Account" : "Administration");
      this.main.replaceChildren((kind === "account" ? account : admin)(this.session));
      return;
    }
    this.#name(chat ? (this.chats.title(chat) ?? "") : "New chat");
    this.view = new Chat(this, chat);
    this.main.replaceChildren(this.view.element);
    this.view.composer.focus();
  }

  #name(title) {
    this.title.textContent = title;
    document.title = title ? `${title} · Parley` : "Parley";
  }

  // begun hears that the new chat has begun, and has its id.
  begun(chat, title) {
    if (this.view !== chat) return;
    this.drafts.delete(null);
    history.pushState(null, "", `#/chats/${chat.id}`);
    this.chats.open(chat.id);
    this.opener.hidden = false;
    this.#name(title);
  }

  // giveBack puts a text that was not sent before what has been written since.
  giveBack(id, text) {
    const before = (rest) => (rest ? `${text}\n\n${rest}` : text);
    if (this.view?.id === id) this.view.composer.value = before(this.view.composer.value);
    else this.drafts.set(id, before(this.drafts.get(id)));
  }

  // titled hears what a chat is called.
  titled(chat) {
    if (this.view && this.view.id === chat.id) this.#name(chat.title);
  }

  // #listen follows the feed. What was missed for too long is read anew.
  async #listen() {
    const on = (event) => {
      if (event.type === "ready" || event.type === "resync") {
        this.#read();
        return;
      }
      this.chats.hear(event);
      this.view?.hear(event);
      if (event.type === "chat_updated") this.titled(event.data);
      if (event.type === "chat_deleted" && event.data.chat_id === this.view?.id) this.#gone();
    };
    try {
      await listen(this.session, on, (connected) => this.#connected(connected));
    } catch (problem) {
      if (!this.session.ended.aborted) say(problem.message);
    }
  }

  // #connected shows a connection that is lost; one that is back in a moment was
  // not.
  #connected(now) {
    if (now) {
      clearTimeout(this.#late);
      this.#late = 0;
      this.connection.hidden = true;
    }
    if (now || this.#late) return;
    this.#late = setTimeout(() => {
      this.connection.textContent = navigator.onLine ? "Connecting …" : "Offline";
      this.connection.hidden = false;
    }, 1500);
  }

  #gone() {
    say("This chat is deleted.");
    location.hash = "#/";
  }

  #rename() {
    const { id } = this.view;
    const shut = dialog("Rename the chat", form({
      fields: [field("title", "Title", { value: this.title.textContent, maxlength: "200" })],
      submit: "Rename",
      act: async (values) => {
        this.titled(await this.session.json("PATCH", `chats/${id}`, { title: "", ...values }));
        shut();
      },
    }));
  }

  #export(type, ending) {
    const { id } = this.view;
    trying(async () => save(await (await this.session.ask("GET", `chats/${id}/export`, { headers: { Accept: type } })).blob(), `chat-${id}.${ending}`));
  }

  #delete() {
    const { id } = this.view;
    confirm({
      title: "Delete this chat?",
      text: `“${this.title.textContent}” goes with all of its messages. There is no way back.`,
      submit: "Delete",
      act: async () => {
        await this.session.json("DELETE", `chats/${id}`);
        this.chats.hear({ type: "chat_deleted", data: { chat_id: id } });
        if (this.view?.id === id) location.hash = "#/";
      },
    });
  }
}
