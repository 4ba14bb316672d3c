// markdown.js shows a small part of Markdown as elements: headings, lists,
// quotes, code, tables, emphasis, links. The text is a model's, so it is hostile:
// it becomes text nodes and elements that are named here, a link leads to http,
// https or mailto, and the time it takes grows with the length alone.

import { append, button, el } from "./dom.js";

const deepest = 8; // lists and quotes within one another
const mostOpen = 16; // emphasis and links within one another

// A Markdown shows a text that grows in an element. What is complete is made
// once; only the last blocks are made again.
export class Markdown {
  constructor(element) {
    this.element = element;
  }

  #text = "";
  #settled = 0; // characters of the text that are complete blocks
  #kept = 0; // and how many elements these are

  set(text) {
    if (!text.startsWith(this.#text)) {
      this.#settled = this.#kept = 0;
    }
    this.#text = text;
    const lines = text.slice(this.#settled).split("\n");
    const blocks = parse(lines, 0);
    for (let n = this.element.childNodes.length; n > this.#kept; n--) this.element.lastChild.remove();
    append(this.element, blocks.map((block) => block.node));
    // What the last two lines begin may turn out to belong to what is before it.
    const last = blocks.findLastIndex((block) => block.from < lines.length - 2);
    if (last < 1) return;
    this.#kept += last;
    for (const line of lines.slice(0, blocks[last].from)) this.#settled += line.length + 1;
  }
}

const blank = (line) => line.trim() === "";
const fence = /^ {0,3}(?:(`{3,})([^`]*)$|(~{3,})(.*))/s;
const heading = /^ {0,3}(#{1,6})(?=\s|$)/;
const quote = /^ {0,3}> ?/;
const marker = /^(\s*)([-*+]|\d{1,9}[.)])(\s+|$)/;
const underline = /^[\s|:-]+$/;

function rule(line) {
  const bare = line.replace(/\s/g, "");
  return bare.length >= 3 && "-*_".includes(bare[0]) && bare === bare[0].repeat(bare.length);
}

function item(line) {
  const found = marker.exec(line);
  if (!found) return null;
  const [all, indent, mark, space] = found;
  const content = space.length > 4 ? indent.length + mark.length + 1 : all.length;
  return { indent: indent.length, ordered: mark.length > 1, start: parseInt(mark), content, empty: content >= line.length };
}

const tableAt = (lines, i) =>
  lines[i].includes("|") && i + 1 < lines.length && underline.test(lines[i + 1]) && lines[i + 1].includes("-") && lines[i + 1].includes("|");

// interrupts tells whether a line ends the paragraph before it.
function interrupts(lines, i) {
  const line = lines[i];
  if (blank(line) || fence.test(line) || heading.test(line) || quote.test(line) || rule(line) || tableAt(lines, i)) return true;
  const it = item(line);
  return it !== null && !it.empty && (!it.ordered || it.start === 1);
}

// parse returns the blocks of the lines: each an element, and the line that it
// begins with.
function parse(lines, depth) {
  const blocks = [];
  for (let i = 0; i < lines.length; ) {
    if (blank(lines[i])) {
      i++;
      continue;
    }
    const [node, next] = block(lines, i, depth);
    blocks.push({ node, from: i });
    i = next;
  }
  return blocks;
}

// block makes the one that begins with line i, and returns it with the line
// behind it.
function block(lines, i, depth) {
  const line = lines[i];
  let found;
  if ((found = fence.exec(line))) return code(lines, i, found[1] ?? found[3], (found[2] ?? found[4]).trim());
  if ((found = heading.exec(line))) {
    const level = Math.min(found[1].length + 2, 6); // the page and the chat have the first two
    return [inline(line.slice(found[0].length).trim(), el(`h${level}`)), i + 1];
  }
  if (rule(line)) return [el("hr"), i + 1];
  if (depth < deepest) {
    if (quote.test(line)) return quotation(lines, i, depth);
    if (item(line)) return list(lines, i, depth);
  }
  if (tableAt(lines, i)) return table(lines, i);
  let end = i + 1;
  while (end < lines.length && !interrupts(lines, end)) end++;
  const text = lines.slice(i, end).map((part) => part.trim()).join("\n");
  return [inline(text, el("p")), end];
}

function code(lines, i, open, language) {
  let end = i + 1;
  while (end < lines.length && !closes(lines[end], open)) end++;
  const text = lines.slice(i + 1, end).join("\n");
  const copy = button({ label: "Copy the code", name: "copy", class: "quiet", "data-copy": "code" });
  const pre = el("pre", { tabindex: "0" }, el("code", {}, text));
  return [el("div", { class: "code" }, el("div", { class: "bar" }, el("span", {}, language || "text"), copy), pre), Math.min(end + 1, lines.length)];
}

function closes(line, open) {
  const text = line.trim();
  return text.length >= open.length && text === open[0].repeat(text.length);
}

function quotation(lines, i, depth) {
  const inner = [];
  for (; i < lines.length && !blank(lines[i]); i++) {
    if (!quote.test(lines[i]) && interrupts(lines, i)) break;
    inner.push(lines[i].replace(quote, ""));
  }
  return [el("blockquote", {}, parse(inner, depth + 1).map((part) => part.node)), i];
}

function list(lines, i, depth) {
  const first = item(lines[i]);
  const node = el(first.ordered ? "ol" : "ul", { start: first.ordered && first.start !== 1 ? first.start : null });
  let inner = null; // lines of the item
  let content = 0; // where they begin
  let end = i;
  const close = () => inner && node.append(listItem(parse(inner, depth + 1)));
  for (; i < lines.length; i++) {
    const line = lines[i];
    if (blank(line)) continue; // belongs to the list if something of the list follows
    const indent = line.length - line.trimStart().length;
    const it = item(line);
    const apart = i > end; // blank lines came before
    if (it && it.indent < first.indent + 2 && !rule(line)) {
      if (it.ordered !== first.ordered) break;
      close();
      inner = [line.slice(it.content)];
      content = it.content;
    } else if (indent >= Math.min(content, first.indent + 2)) {
      if (apart) inner.push("");
      inner.push(line.slice(Math.min(indent, content)));
    } else if (apart || interrupts(lines, i)) break;
    else inner.push(line.trimStart());
    end = i + 1;
  }
  close();
  return [node, end];
}

// listItem shows a first paragraph without the distance of one.
function listItem(blocks) {
  const [first, ...more] = blocks.map((part) => part.node);
  return el("li", {}, first?.localName === "p" ? [...first.childNodes] : first, more);
}

function table(lines, i) {
  const head = cells(lines[i]);
  const align = cells(lines[i + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : null));
  const row = (texts, name) => el("tr", {}, texts.slice(0, head.length).map((text, n) => inline(text, el(name, { class: align[n] }))));
  const body = el("tbody");
  const node = el("div", { class: "table", tabindex: "0" }, el("table", {}, el("thead", {}, row(head, "th")), body));
  for (i += 2; i < lines.length && lines[i].includes("|") && !blank(lines[i]); i++) body.append(row(cells(lines[i]), "td"));
  return [node, i];
}

// cells splits a row at each | that has no backslash before it.
function cells(line) {
  const parts = [""];
  const text = line.trim().replace(/^\|/, "");
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "\\" && text[i + 1] === "|") parts[parts.length - 1] += text[++i];
    else if (text[i] === "|") parts.push("");
    else parts[parts.length - 1] += text[i];
  }
  if (parts.length > 1 && blank(parts.at(-1))) parts.pop();
  return parts.map((part) => part.trim());
}

const ordinary = /[^\\`\n*_~[\]!<h]+/y;
const punctuation = /[!-/:-@[-`{-~]/;
const word = /[\p{L}\p{N}_]/u;
const angled = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const bare = /https?:\/\/[^\s<>"`]{1,2000}/y;
const target = /\(\s*([^\s()<>[\]]*(?:\([^\s()<>[\]]*\)[^\s()<>[\]]*)*)(?:\s+(?:"[^"\n]*"|'[^'\n]*'))?\s*\)/y;
const emphasis = { "*": ["em", "strong"], _: ["em", "strong"], "~": [null, "del"] };

// inline puts a text into an element, and returns that.
function inline(text, into) {
  const line = new Inline(text, into);
  while (line.at < text.length) line.step();
  line.finish();
  return into;
}

// link makes one that leads where it may, or null.
function link(address) {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
  return el("a", { href: url.href, target: "_blank", rel: "noopener noreferrer" });
}

// An Inline is a text on its way into an element. What was opened and is not
// closed yet is a stack of elements; what is never closed was text.
class Inline {
  constructor(text, into) {
    this.text = text;
    this.at = 0;
    this.plain = "";
    this.open = [{ mark: "", node: into }];
    this.lastTicks = new Map(); // where the last run of so many backticks is
    for (const run of text.matchAll(/`+/g)) this.lastTicks.set(run[0].length, run.index);
  }

  flush() {
    if (this.plain !== "") this.open.at(-1).node.append(this.plain);
    this.plain = "";
  }

  put(node) {
    this.flush();
    this.open.at(-1).node.append(node);
  }

  match(pattern, at = this.at) {
    pattern.lastIndex = at;
    return pattern.exec(this.text);
  }

  step() {
    const { text, at } = this;
    const run = this.match(ordinary);
    if (run) {
      this.plain += run[0];
      this.at += run[0].length;
      return;
    }
    const c = text[at];
    const taken =
      c === "`" ? this.code() : c in emphasis ? this.emphasis(c) : c === "]" ? this.closeLink() : c === "<" || c === "h" ? this.address() : this.sign(c);
    if (!taken) {
      this.plain += c;
      this.at++;
    }
  }

  // sign takes what is about one or two characters.
  sign(c) {
    const next = this.text[this.at + 1];
    if (c === "\n") {
      this.put(el("br"));
    } else if (c === "\\" && next !== undefined && punctuation.test(next)) {
      this.plain += next;
      this.at++;
    } else if (c === "[" && this.open.length < mostOpen) {
      this.push("[", el("span"));
    } else if (!(c === "!" && next === "[")) {
      return false; // of an image, which is not loaded, the link is left
    }
    this.at++;
    return true;
  }

  code() {
    const mark = this.match(/`+/y)[0];
    const begin = this.at + mark.length;
    if (!(this.lastTicks.get(mark.length) >= begin)) {
      this.plain += mark;
      this.at = begin;
      return true;
    }
    const runs = /`+/g;
    runs.lastIndex = begin;
    let end = runs.exec(this.text);
    while (end[0].length !== mark.length) end = runs.exec(this.text);
    const content = this.text.slice(begin, end.index).replace(/\n/g, " ");
    const padded = content.startsWith(" ") && content.endsWith(" ") && !blank(content);
    this.put(el("code", {}, padded ? content.slice(1, -1) : content));
    this.at = runs.lastIndex;
    return true;
  }

  emphasis(c) {
    const { text, at } = this;
    let end = at;
    while (text[end] === c) end++;
    const before = text[at - 1] ?? " ";
    const after = text[end] ?? " ";
    const inWord = c === "_" && word.test(before) && word.test(after);
    let left = end - at;
    this.at = end;
    if (!/\s/.test(before) && !inWord) {
      for (let mark; left > 0 && (mark = this.openMark(c, left)); left -= mark.length) this.close(mark);
    }
    const name = emphasis[c][left - 1];
    if (name && !/\s/.test(after) && !inWord && this.open.length < mostOpen) this.push(c.repeat(left), el(name));
    else this.plain += c.repeat(left);
    return true;
  }

  // openMark is the last mark of that character that is open, if it is not
  // longer than most, and no link has begun since.
  openMark(c, most) {
    for (let i = this.open.length - 1; i > 0 && this.open[i].mark !== "["; i--) {
      if (this.open[i].mark[0] === c && this.open[i].mark.length <= most) return this.open[i].mark;
    }
    return null;
  }

  push(mark, node) {
    this.put(node);
    this.open.push({ mark, node });
  }

  // close ends the last one that has the mark; those within it were none.
  close(mark) {
    while (this.open.at(-1).mark !== mark) this.undo();
    this.flush();
    return this.open.pop().node;
  }

  // undo makes the last one that is open text again.
  undo() {
    this.flush();
    const { mark, node } = this.open.pop();
    const text = document.createDocumentFragment();
    text.append(mark);
    while (node.firstChild) text.append(node.firstChild);
    node.replaceWith(text);
  }

  closeLink() {
    if (!this.open.some((one) => one.mark === "[")) return false;
    const found = this.match(target, this.at + 1);
    const anchor = found && !this.open.findLast((one) => one.mark === "[").around && link(found[1]);
    if (!anchor) {
      while (this.open.at(-1).mark !== "[") this.undo();
      this.undo();
      return false;
    }
    const shown = this.close("[");
    for (const one of this.open) one.around = true; // there is no link within a link
    while (shown.firstChild) anchor.append(shown.firstChild);
    shown.replaceWith(anchor);
    this.at += 1 + found[0].length;
    return true;
  }

  // address shows an address that stands for itself as a link.
  address() {
    if (this.open.some((one) => one.mark === "[")) return false;
    const found = this.text[this.at] === "<" ? this.match(angled) : word.test(this.text[this.at - 1] ?? " ") ? null : this.match(bare);
    if (!found) return false;
    let shown = found[1] ?? found[0];
    let length = found[0].length;
    if (!found[1]) {
      shown = shown.replace(/[.,;:!?'*_~)\]]{1,8}$/, (tail) => (tail.startsWith(")") && shown.includes("(") ? ")" : ""));
      length = shown.length;
    }
    const anchor = link(shown);
    if (!anchor) return false;
    anchor.append(shown);
    this.put(anchor);
    this.at += length;
    return true;
  }

  finish() {
    while (this.open.length > 1) this.undo();
    this.flush();
  }
}
