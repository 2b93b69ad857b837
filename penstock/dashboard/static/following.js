// New events on top of a table as they are acknowledged (data-follow), over server-sent events.
// The server sends rows that are made as the page's own are.
const MOST = 300;

const number = new Intl.NumberFormat("en");

class Following {
  constructor(box) {
    this.box = box;
    this.body = document.getElementById(box.dataset.into);
    this.toggle = box.querySelector("[data-follow-switch]");
    this.pauses = box.querySelector("[data-follow-pause]");
    this.said = box.querySelector("[data-follow-said]");
    this.source = null;
    this.paused = false;
    this.held = [];
    this.waiting = 0;
    this.came = 0;
    this.leftOut = 0;
    this.behind = 0;
    box.hidden = false;
    if (new URLSearchParams(location.search).get("live") === "1") this.start();
  }

  start() {
    const source = new EventSource(this.box.dataset.follow);
    this.source = source;
    this.toggle.setAttribute("aria-pressed", "true");
    this.pauses.hidden = false;
    this.tell("connecting…");
    source.addEventListener("open", () => this.tell());
    source.addEventListener("rows", (event) => this.take(JSON.parse(event.data)));
    for (const name of ["heartbeat", "behind"]) {
      source.addEventListener(name, (event) => {
        this.behind = JSON.parse(event.data).behind;
        this.tell();
      });
    }
    source.addEventListener("gap", (event) => {
      this.tell(`${number.format(JSON.parse(event.data).events)} events can be shown no more`);
    });
    source.addEventListener("end", (event) => {
      this.stop();
      this.tell(`ended: ${JSON.parse(event.data).detail}`);
    });
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) {
        this.tell("not connected, trying again…");
      } else if (this.source === source) {
        this.stop();
        this.tell("could not begin; load the page again");
      }
    });
    this.remember("1");
  }

  stop() {
    this.source?.close();
    this.source = null;
    this.paused = false;
    this.pauses.hidden = true;
    this.pauses.textContent = "Pause";
    this.toggle.setAttribute("aria-pressed", "false");
    this.show();
    this.tell("");
    this.remember(null);
  }

  // The address shows the same to somebody else.
  remember(value) {
    const address = new URL(location.href);
    if (value) address.searchParams.set("live", value);
    else address.searchParams.delete("live");
    history.replaceState(history.state, "", address);
  }

  take({ rows, events, left_out: leftOut }) {
    this.leftOut += leftOut;
    this.held.unshift(rows);
    this.waiting += events + leftOut;
    let kept = 0;
    this.held = this.held.filter((one) => (kept += one.split("<tr").length - 1) <= MOST || one === rows);
    if (!this.paused) this.show();
    this.tell();
  }

  show() {
    const made = document.createElement("template");
    made.innerHTML = this.held.join("");
    this.held = [];
    const fresh = [...made.content.querySelectorAll("tr")].filter((row) => !document.getElementById(row.id));
    this.came += fresh.length;
    this.waiting = 0;
    if (fresh.length) {
      for (const row of fresh) row.classList.add("fresh");
      this.body.prepend(...fresh);
      for (const row of [...this.body.rows].slice(MOST)) row.remove();
      const box = this.body.closest("[data-follow-shows]");
      if (box) {
        box.hidden = false;
        box.closest("section").querySelector(".empty")?.remove();
      }
    }
  }

  tell(text) {
    if (text !== undefined) {
      this.said.textContent = text;
      return;
    }
    const parts = [`${number.format(this.came)} new`];
    if (this.paused) parts.push(`${number.format(this.waiting)} held back`);
    if (this.leftOut) parts.push(`${number.format(this.leftOut)} passed by too fast to be shown`);
    if (this.behind >= 1000) parts.push(`${number.format(this.behind)} behind`);
    this.said.textContent = parts.join(", ");
  }

  pause() {
    this.paused = !this.paused;
    this.pauses.textContent = this.paused ? "Go on" : "Pause";
    if (!this.paused) this.show();
    this.tell();
  }
}

export const startFollowing = () => {
  let here = null;
  const find = () => {
    const box = document.querySelector("[data-follow]");
    if (box === here?.box) return;
    here?.source?.close();
    here = box ? new Following(box) : null;
  };
  find();
  document.addEventListener("htmx:afterSwap", find);
  document.addEventListener("click", (event) => {
    if (!here) return;
    if (event.target.closest("[data-follow-switch]")) here.source ? here.stop() : here.start();
    if (event.target.closest("[data-follow-pause]")) here.pause();
  });
};
