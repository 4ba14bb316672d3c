// main.js begins: with the session that is stored, or at the door.

import { App } from "./app.js";
import { Session, stored } from "./session.js";
import { signIn } from "./signin.js";

const place = document.getElementById("place");

function enter(session) {
  session.addEventListener("ended", (event) => {
    for (const open of document.querySelectorAll("dialog")) open.close();
    history.replaceState(null, "", "#/");
    leave(event.detail);
  });
  new App(place, session);
}

function leave(note) {
  document.title = "Parley";
  signIn(place, note, enter);
}

// Who signs in in another window is signed in here too.
addEventListener("storage", () => {
  const session = stored();
  if (session && place.querySelector(".door")) enter(new Session(session.user));
});

const session = stored();
if (session) enter(new Session(session.user));
else leave();
place.dataset.ready = "";
