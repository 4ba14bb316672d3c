// signin.js is the page for who is not signed in.

import { ask, read } from "./api.js";
import { button, el } from "./dom.js";
import { field, form } from "./forms.js";
import { begin } from "./session.js";

// signIn shows the forms in place, with a note above, until somebody is signed in,
// whom it gives to welcome as a Session.
export function signIn(place, note, welcome) {
  const email = () => field("email", "Email", { type: "email", autocomplete: "username", inputmode: "email" });
  const said = el("p", { class: "said", role: "status" }, note ?? "");
  const card = el("div", { class: "card" });
  const forms = {
    "sign in": () => form({
      title: "Sign in",
      fields: [email(), field("password", "Password", { type: "password", autocomplete: "current-password" })],
      submit: "Sign in",
      act: async (values) => welcome(await begin("auth/login", values)),
      more: [turn("Forgot the password?", "forgot")],
    }),
    "sign up": () => form({
      title: "Create an account",
      fields: [
        email(),
        field("user_name", "Name (optional)", { autocomplete: "nickname", maxlength: "100" }),
        field("password", "Password, 8 characters or more", { type: "password", autocomplete: "new-password" }),
      ],
      submit: "Create the account",
      act: async (values) => welcome(await begin("auth/signup", values)),
    }),
    forgot: () => form({
      title: "Forgot the password?",
      fields: [email()],
      submit: "Send me a link",
      act: async (values) => {
        const answer = await read(await ask("POST", "auth/reset-password-request", { body: values }));
        show("sign in", answer.message);
      },
      more: [turn("Back", "sign in")],
    }),
  };
  const turn = (text, name) => button({ text, class: "link", click: () => show(name) });
  function show(name, sentence = "") {
    const address = card.querySelector("[name=email]")?.value ?? "";
    said.textContent = sentence;
    const other = name === "sign up" ? ["You have an account?", "Sign in", "sign in"] : ["No account yet?", "Create one", "sign up"];
    card.replaceChildren(forms[name](), el("p", { class: "other" }, other[0], " ", turn(other[1], other[2])));
    card.querySelector("[name=email]").value = address;
    card.querySelector(address ? "[type=password]" : "[name=email]")?.focus();
  }
  show("sign in", note);
  place.replaceChildren(el("main", { class: "door" }, el("h1", { class: "brand" }, "Parley"), said, card));
}
