// forms.js is what all forms here have in common: labelled fields, what is wrong
// beside the field that it is about, and dialogs that ask.

import { button, el, say } from "./dom.js";

let count = 0;

// field makes a labelled input. name is the API's.
export function field(name, label, properties = {}) {
  const id = `field-${++count}`;
  const input = el("input", { id, name, type: "text", "aria-describedby": `${id}-wrong`, ...properties });
  return el("div", { class: "field" }, el("label", { for: id }, label), input, el("p", { class: "wrong", id: `${id}-wrong`, role: "alert" }));
}

// form makes a form that calls act with what is in its fields, empty ones left
// out, and shows what a Problem says of them.
export function form({ title, fields, submit, act, danger = false, more = [] }) {
  const wrong = el("p", { class: "wrong", role: "alert" });
  const go = el("button", { class: danger ? "danger" : "primary" }, submit);
  const element = el("form", { novalidate: true }, title && el("h2", {}, title), fields, wrong, el("div", { class: "row" }, go, more));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (go.disabled) return;
    const values = Object.fromEntries([...new FormData(element)].filter(([, value]) => value !== ""));
    show(element, wrong, null);
    go.disabled = true;
    try {
      await act(values, element);
    } catch (problem) {
      if (problem.name !== "AbortError") show(element, wrong, problem);
    } finally {
      go.disabled = false;
    }
  });
  return element;
}

function show(element, wrong, problem) {
  let first = null;
  for (const input of element.querySelectorAll("input[name]")) {
    const about = problem?.fields?.find((one) => one.field === input.name);
    input.setAttribute("aria-invalid", String(Boolean(about)));
    document.getElementById(input.getAttribute("aria-describedby")).textContent = about?.detail ?? "";
    if (about) first ??= input;
  }
  wrong.textContent = first || !problem ? "" : problem.message;
  first?.focus();
}

// dialog shows content until it is closed, which it returns how to do.
export function dialog(title, ...content) {
  const id = `dialog-${++count}`;
  const shut = () => element.close();
  const element = el(
    "dialog",
    { "aria-labelledby": id, close: () => element.remove() },
    el("header", {}, el("h2", { id }, title), button({ label: "Close", name: "close", class: "quiet", click: shut })),
    ...content,
  );
  element.addEventListener("click", (event) => event.target === element && shut()); // beside it
  document.body.append(element);
  element.showModal();
  return shut;
}

// confirm asks before act, which may take values from fields. What is typed into
// the field named "word" must be word, where there is one.
export function confirm({ title, text, submit, fields = [], word, act }) {
  if (word) fields = [...fields, field("word", `Type “${word}” to confirm`, { autocomplete: "off", autocapitalize: "off", spellcheck: "false" })];
  const shut = dialog(
    title,
    el("p", {}, text),
    form({
      fields,
      submit,
      danger: true,
      more: [button({ text: "Cancel", click: () => shut() })],
      act: async ({ word: typed, ...values }) => {
        if (word && typed !== word) throw Object.assign(new Error(), { fields: [{ field: "word", detail: `This is not “${word}”.` }] });
        await act(values);
        shut();
      },
    }),
  );
}

// trying does what a button asks for, and tells what goes wrong.
export async function trying(act) {
  try {
    return await act();
  } catch (problem) {
    if (problem.name !== "AbortError") say(problem.message);
  }
}
