// dom.js makes elements. Text only ever becomes a text node: nothing here, and
// nothing that uses it, turns a string into markup.

// el makes an element. Properties that are functions listen to the event of
// that name; true and false set and leave out an attribute; children are nodes
// and strings, and what is null or false is none.
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  append(element, children);
  return element;
}

// append does so one by one: a call takes fewer arguments than a text has parts.
export function append(element, children) {
  for (const child of children.flat()) if (child != null && child !== false) element.append(child);
}

// paths are of 24 by 24 drawings, made of strokes.
const paths = {
  plus: "M12 5v14M5 12h14",
  send: "M12 19V5M5 12l7-7 7 7",
  stop: "M7 7h10v10H7z",
  mic: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5 11a7 7 0 0 0 14 0M12 18v3",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 13l4 4L19 7",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  again: "M20 11a8 8 0 1 0-2 6M20 5v6h-6",
  sound: "M4 10v4h3l5 4V6L7 10zM16 9a4 4 0 0 1 0 6M18.5 6.5a8 8 0 0 1 0 11",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v14M5 12l7 7 7-7",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21a8 8 0 0 1 16 0",
  shield: "M12 3l8 3v6c0 5-4 8-8 9-4-1-8-4-8-9V6z",
  book: "M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11",
  leave: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
};

const svg = "http://www.w3.org/2000/svg";

export function icon(name) {
  const drawing = document.createElementNS(svg, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("aria-hidden", "true");
  drawing.classList.add("icon", `icon-${name}`);
  const path = document.createElementNS(svg, "path");
  path.setAttribute("d", paths[name]);
  drawing.append(path);
  return drawing;
}

// button makes a button of an icon, a text, or both. One without a text is named
// by its label.
export function button({ label, name, text, ...properties }) {
  const title = text ? undefined : label;
  return el("button", { type: "button", title, "aria-label": title, ...properties }, name && icon(name), text && el("span", {}, text));
}

const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const hours = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const days = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

// time shows a time of the API: short as people say it, and whole as its title.
export function time(value) {
  const date = new Date(value);
  const today = date.toDateString() === new Date().toDateString();
  return el("time", { datetime: value, title: dates.format(date) }, (today ? hours : days).format(date));
}

export const whole = (value) => (value ? dates.format(new Date(value)) : "never");

// save hands a file to the browser.
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

// say tells a sentence to who sees the page, and to who has it read aloud.
export function say(sentence) {
  const place = document.getElementById("said");
  const line = el("p", {}, sentence);
  place.append(line);
  setTimeout(() => line.remove(), 6000);
}
