// account.js is the page of the user's own account.

import { button, el, save, say, time, whole } from "./dom.js";
import { confirm, field, form, trying } from "./forms.js";

// account makes the page.
export function account(session) {
  const page = el("div", { class: "page" });
  page.append(profile(session), password(session), devices(session), usage(session), leaving(session));
  return page;
}

const panel = (title, ...content) => el("section", { class: "panel" }, el("h2", {}, title), ...content);

function profile(session) {
  const name = field("user_name", "Name", { autocomplete: "nickname", maxlength: "100", value: session.user.user_name });
  const email = field("email", "Email", { type: "email", autocomplete: "email", value: session.user.email });
  const current = field("current_password", "Current password, for another address", { type: "password", autocomplete: "current-password" });
  return panel("Profile", form({
    fields: [name, email, current],
    submit: "Save",
    act: async (values, element) => {
      if (values.email === session.user.email) delete values.email; // the same, which needs no password
      session.setUser(await session.json("PATCH", "user/profile", values));
      element.elements.current_password.value = "";
      say("Saved.");
    },
  }));
}

function password(session) {
  return panel("Password", form({
    fields: [
      el("input", { type: "text", autocomplete: "username", value: session.user.email, hidden: true }), // for password managers
      field("current_password", "Current password", { type: "password", autocomplete: "current-password" }),
      field("new_password", "New password, 8 characters or more", { type: "password", autocomplete: "new-password" }),
    ],
    submit: "Change the password",
    act: async (values, element) => {
      await session.json("POST", "auth/change-password", values);
      element.reset();
      say("The password is changed. Other devices are signed out.");
    },
  }));
}

function devices(session) {
  const list = el("ul", { class: "rows" });
  const read = () => trying(async () => {
    const answer = await session.json("GET", "auth/devices");
    list.replaceChildren(...answer.devices.map((device) => el(
      "li",
      {},
      el("div", {}, el("strong", { title: device.name }, called(device.name)), el("small", {}, device.ip, device.ip && " · ", "last seen ", time(device.last_seen_at), ", since ", time(device.created_at))),
      device.current ? el("span", { class: "tag" }, "This one") : button({ text: "Sign out", class: "small", click: () => trying(async () => {
        await session.json("DELETE", `auth/devices/${device.id}`);
        await read();
      }) }),
    )));
  });
  read();
  return panel("Devices", list, el("div", { class: "row" },
    button({ text: "Sign out", click: () => session.signOut() }),
    button({ text: "Sign out everywhere", click: () => confirm({
      title: "Sign out everywhere?",
      text: "All devices are signed out, this one too.",
      submit: "Sign out everywhere",
      act: () => session.signOutEverywhere(),
    }) }),
  ));
}

// called makes a name of what a browser calls itself.
function called(name) {
  const browser = ["Edg", "OPR", "Firefox", "Chrome", "Safari"].find((one) => name.includes(one));
  const system = [["iPhone", "iPhone"], ["iPad", "iPad"], ["Android", "Android"], ["Mac OS", "macOS"], ["Windows", "Windows"], ["CrOS", "ChromeOS"], ["Linux", "Linux"]].find(([mark]) => name.includes(mark));
  if (!browser || !name.startsWith("Mozilla/")) return name.slice(0, 60);
  return `${{ Edg: "Edge", OPR: "Opera" }[browser] ?? browser}${system ? ` on ${system[1]}` : ""}`;
}

function usage(session) {
  const text = el("p", {}, "…");
  trying(async () => {
    const report = await session.json("GET", "user/usage?days=31");
    const sum = (key) => report.days.reduce((total, day) => total + day[key], 0).toLocaleString();
    text.textContent = `In the last 31 days ${sum("replies")} replies, ${sum("input_tokens")} tokens read and ${sum("output_tokens")} written.`;
    if (report.limit) text.append(` Today ${report.limit.used.toLocaleString()} of ${report.limit.daily_tokens.toLocaleString()} tokens are used, until ${whole(report.limit.resets_at)}.`);
  });
  return panel("Usage", text);
}

function leaving(session) {
  const exported = button({ text: "Export my data", click: async () => {
    exported.disabled = true;
    await trying(async () => save(await (await session.ask("GET", "user/export")).blob(), "parley-export.json"));
    exported.disabled = false;
  } });
  const remove = button({ text: "Delete my account", class: "danger", click: () => confirm({
    title: "Delete your account?",
    text: "Your account goes, with all of your chats, messages and recordings. There is no way back.",
    submit: "Delete my account",
    fields: [field("current_password", "Current password", { type: "password", autocomplete: "current-password" })],
    word: "delete",
    act: async (values) => {
      await session.json("DELETE", "user", values);
      session.forget("Your account is deleted.");
    },
  }) });
  return panel("Your data", el("p", {}, "The export is one JSON file of all that is stored about you."), el("div", { class: "row" }, exported, remove));
}
