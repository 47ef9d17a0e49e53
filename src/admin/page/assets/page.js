// Keeps the page up to date from one stream of events, and says whether it is. Without it the page is whole, but stands.

import { patch } from "./patch.js";

const status = document.getElementById("status");
const button = document.getElementById("pause");
let source = null;
let last = 0;

function say(text, stale) {
  if (status.textContent !== text) {
    status.textContent = text;
  }
  document.body.classList.toggle("stale", stale);
}

function open() {
  source = new EventSource(document.body.dataset.events);
  source.onmessage = (event) => {
    last = performance.now();
    patch(JSON.parse(event.data));
    say("live", false);
  };
}

function close() {
  source?.close();
  source = null;
}

function paused() {
  return button.getAttribute("aria-pressed") === "true";
}

button.addEventListener("click", () => {
  button.setAttribute("aria-pressed", String(!paused()));
  button.textContent = paused() ? "Go on" : "Pause";
  if (paused()) {
    close();
    say("paused", true);
  } else {
    open();
  }
});

// A page that nobody sees needs no data, and the number of streams is bounded.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
  } else if (!paused() && !source) {
    open();
  }
});
addEventListener("pagehide", close);
addEventListener("pageshow", () => {
  if (!paused() && !source && !document.hidden) {
    open();
  }
});

setInterval(() => {
  if (!paused() && performance.now() - last > 4000) {
    say(last === 0 ? "connecting" : "no news: is the process gone, or are too many watching?", last > 0);
    // A stream that was refused is not asked for again by the browser.
    if (source?.readyState === EventSource.CLOSED) {
      open();
    }
  }
}, 2000);

document.getElementById("live").hidden = false;
