// What every page does. Each module looks for its own attributes, also in what htmx brings.
import { startKeys } from "./keys.js";
import { startDialogs } from "./dialogs.js";
import { startCopying } from "./copy.js";
import { startPlots } from "./plot.js";
import { startLive } from "./live.js";
import { startAddress } from "./address.js";
import { startBars } from "./bars.js";
import { startCompletion } from "./completion.js";
import { startFollowing } from "./following.js";
import { startSignIn } from "./sign-in.js";
import { startThemeSwitch } from "./theme-switch.js";

// What only works with these modules is hidden until they are here.
const reveal = (root) => {
  for (const one of root.querySelectorAll("[data-opens][hidden], [data-copies][hidden], [data-theme-switch][hidden]")) {
    one.hidden = false;
  }
};

reveal(document);
document.addEventListener("htmx:load", (event) => reveal(event.detail.elt.parentElement ?? document));

startAddress();
startKeys();
startDialogs();
startCopying();
startPlots();
startLive();
startBars();
startCompletion();
startFollowing();
startSignIn();
startThemeSwitch();
// Tests wait for it: htmx has its forms by then.
document.addEventListener("DOMContentLoaded", () => { document.documentElement.dataset.ready = ""; });
