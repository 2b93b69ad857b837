// What every page does at once: keys, dialogs, parts that renew themselves. A module that only some
// pages have a use for comes when the page is there and has something for it, also from htmx.
import { startDialogs } from "./dialogs.js";
import { startKeys } from "./keys.js";
import { startLive } from "./live.js";

const later = new Map([
  ["[data-address]", async () => (await import("./address.js")).startAddress()],
  ["[data-theme-switch]", async () => (await import("./theme-switch.js")).startThemeSwitch()],
  ["[data-copies]", async () => (await import("./copy.js")).startCopying()],
  ["[data-plot]", async () => (await import("./plot.js")).startPlots()],
  ["[data-bars], [data-narrow-closes], [data-not]", async () => (await import("./bars.js")).startBars()],
  ["[data-completes]", async () => (await import("./completion.js")).startCompletion()],
  ["[data-follow]", async () => (await import("./following.js")).startFollowing()],
]);

const bring = async () => {
  const wanted = [...later].filter(([marks]) => document.querySelector(marks));
  for (const [marks] of wanted) later.delete(marks);
  await Promise.all(wanted.map(([, start]) => start()));
  // What only works with a module is hidden until it is here.
  for (const one of document.querySelectorAll("[data-opens][hidden], [data-copies][hidden], [data-theme-switch][hidden]")) {
    one.hidden = false;
  }
};

// On a phone the row of pages is wider than the screen: the one that is shown is in sight.
const showWhere = () => {
  for (const row of document.querySelectorAll(".bar nav ul, .tabs ul")) {
    const here = row.querySelector("[aria-current]");
    if (here) row.scrollLeft = here.offsetLeft - row.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
  }
};

showWhere();
startKeys();
startDialogs();
startLive();

const begin = async () => {
  document.addEventListener("htmx:load", bring);
  await bring();
  // Tests wait for it: htmx has its forms by then.
  document.documentElement.dataset.ready = "";
};
if (document.readyState === "complete") begin();
else addEventListener("load", begin);
