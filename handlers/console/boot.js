// boot.js notices a page that did not begin. While a new version is rolled out,
// the page may come from one replica and a module from another one that does not
// fit; a moment later all is of one version.
"use strict";

setTimeout(function look() {
  var place = document.getElementById("place");
  if (place.dataset.ready !== undefined) {
    sessionStorage.removeItem("parley.reloads");
    return;
  }
  if (document.readyState !== "complete") {
    setTimeout(look, 1000);
    return;
  }
  var times = Number(sessionStorage.getItem("parley.reloads")) || 0;
  if (times < 5) {
    sessionStorage.setItem("parley.reloads", String(times + 1));
    location.reload();
    return;
  }
  place.textContent = "The console cannot start. It needs a current browser; reload the page to try again.";
}, 3000);
