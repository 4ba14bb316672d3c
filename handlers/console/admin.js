// admin.js is the page for administrators. Whether somebody is one the server says
// with each answer.

import { button, el, say, time } from "./dom.js";
import { confirm, trying } from "./forms.js";

// admin makes the page.
export function admin(session) {
  const page = el("div", { class: "page wide" });
  session.json("GET", "admin/metrics/system").then(
    (all) => page.append(figures(all), users(session), audit(session), wipe(session)),
    (problem) => page.append(el("p", { class: "state", role: "alert" }, problem.message)),
  );
  return page;
}

const panel = (title, ...content) => el("section", { class: "panel" }, el("h2", {}, title), ...content);

// table makes one with these heads; a head that begins with ">" is over figures.
const table = (heads, body) => el("div", { class: "table", tabindex: "0" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) =>
  head[0] === ">" ? el("th", { class: "right" }, head.slice(1)) : el("th", {}, head)))), body));

function figures(all) {
  const about = (key) => (all.estimates.includes(key) ? "about " : "") + all[key].toLocaleString();
  const list = el("dl", { class: "figures" }, [
    ["Users", about("total_users")],
    ["Chats", about("total_chat_sessions")],
    ["Messages", about("total_messages")],
    ["Replies running", all.running_replies.toLocaleString()],
    ["Active today", all.active_users.day.toLocaleString()],
    ["Active in 7 days", all.active_users.week.toLocaleString()],
    ["Active in 30 days", all.active_users.month.toLocaleString()],
  ].map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  const days = el("tbody", {}, all.days.map((day) => el("tr", {}, el("td", {}, day.day),
    ["active_users", "replies", "input_tokens", "output_tokens"].map((key) => el("td", { class: "right" }, day[key].toLocaleString())))));
  return panel("System", list, el("details", {}, el("summary", {}, "By day"), table(["Day", ">Active users", ">Replies", ">Tokens read", ">Tokens written"], days)));
}

// pages fills rows from a list of the API, and gives a button for what follows.
function pages(session, path, name, rows, row) {
  let reading = 0;
  let cursor = "";
  const more = button({ text: "Show more", class: "small", hidden: true, click: () => page(reading) });
  async function page(mine) {
    const answer = await trying(() => session.json("GET", path() + (cursor && `&cursor=${encodeURIComponent(cursor)}`)));
    if (!answer || mine !== reading) return;
    rows.append(...answer[name].map(row));
    cursor = answer.next_cursor ?? "";
    more.hidden = !cursor;
  }
  const read = () => {
    cursor = "";
    rows.replaceChildren();
    more.hidden = true;
    return page(++reading);
  };
  return { read, more };
}

function users(session) {
  const search = el("input", { type: "search", placeholder: "Address or name", "aria-label": "Search users", maxlength: "200" });
  const rows = el("tbody");
  const { read, more } = pages(session, () => `admin/users?limit=25&q=${encodeURIComponent(search.value.trim())}`, "users", rows, (user) => userRow(session, user));
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(read, 250);
  });
  read();
  return panel("Users", search, table(["User", ">Chats", ">Messages", "Last seen", ""], rows), more);
}

function userRow(session, user) {
  const row = el("tr");
  const change = (body) => trying(async () => {
    draw(await session.json("PATCH", `admin/users/${user.id}`, body));
    say("Saved.");
  });
  const remove = (now) => confirm({
    title: `Delete ${now.email}?`,
    text: "The account goes, with all of its chats and messages. There is no way back.",
    submit: "Delete the account",
    act: async () => {
      await session.json("DELETE", `admin/users/${user.id}`);
      row.remove();
    },
  });
  function draw(now) {
    row.replaceChildren(
      el("td", {},
        el("strong", { dir: "auto" }, now.user_name), " ",
        now.is_admin && el("span", { class: "tag" }, "Administrator"), " ",
        now.disabled && el("span", { class: "tag bad" }, "Disabled"),
        el("br"), el("small", {}, now.email)),
      el("td", { class: "right" }, now.chat_count.toLocaleString()),
      el("td", { class: "right" }, now.message_count.toLocaleString()),
      el("td", {}, now.last_seen_at ? time(now.last_seen_at) : "never"),
      el("td", { class: "acts" },
        button({ text: now.disabled ? "Enable" : "Disable", class: "small", click: () => change({ disabled: !now.disabled }) }),
        button({ text: now.is_admin ? "Not an administrator" : "Make administrator", class: "small", click: () => change({ is_admin: !now.is_admin }) }),
        button({ text: "Delete", class: "small danger", click: () => remove(now) })),
    );
  }
  draw(user);
  return row;
}

function audit(session) {
  const rows = el("tbody");
  const { read, more } = pages(session, () => "admin/audit?limit=25", "entries", rows, (entry) => el(
    "tr",
    {},
    el("td", {}, time(entry.at)),
    el("td", {}, entry.action, entry.detail && el("small", {}, ` ${entry.detail}`)),
    el("td", {}, entry.actor_email ?? "nobody signed in"),
    el("td", {}, entry.subject_email ?? ""),
    el("td", {}, entry.ip),
  ));
  read();
  return panel("Audit", table(["When", "What", "Who", "To whom", "From where"], rows), el("div", { class: "row" }, more, button({ text: "Read again", class: "small", click: read })));
}

function wipe(session) {
  return panel("Delete all users",
    el("p", {}, "Every account goes, yours too, with all chats, messages and recordings, and ids begin anew. The audit stays."),
    button({ text: "Delete all users", class: "danger", click: () => confirm({
      title: "Delete all users?",
      text: "Everybody is signed out and everything they have is deleted. There is no way back.",
      submit: "Delete all users",
      word: "delete all users",
      act: async () => {
        await session.json("POST", "admin/delete-all-users", {});
        session.forget("All users are deleted.");
      },
    }) }));
}
