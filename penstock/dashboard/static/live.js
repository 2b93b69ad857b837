// Parts that renew themselves (data-live): never under somebody's hands, and quietly.
const busy = (part) =>
  document.hidden
  || (part.contains(getSelection()?.anchorNode) && !getSelection().isCollapsed);

export const startLive = () => {
  const last = new WeakMap();

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.target.matches?.("[data-live]") && busy(event.target)) event.preventDefault();
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const part = event.detail.target;
    if (!part.matches?.("[data-live]")) return;
    const text = event.detail.xhr.responseText;
    if (last.get(part) === text) event.detail.shouldSwap = false;
    last.set(part, text);
    // What was opened stays open.
    part.dataset.opened = [...part.querySelectorAll("details[open]")].map((one) => one.closest("[id]").id).join(" ");
    part.dataset.scrolled = JSON.stringify([...part.querySelectorAll(".scroll")].map((one) => one.scrollLeft));
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    const part = event.detail.target;
    if (part.matches?.("[data-live]")) {
      for (const id of (part.dataset.opened ?? "").split(" ").filter(Boolean)) {
        const box = document.getElementById(id);
        if (box?.matches("details")) box.open = true;
        else for (const one of box?.querySelectorAll("details") ?? []) one.open = true;
      }
      JSON.parse(part.dataset.scrolled ?? "[]").forEach((left, place) => {
        const box = part.querySelectorAll(".scroll")[place];
        if (box) box.scrollLeft = left;
      });
      return;
    }
    // After a form: to what is wrong, else to what was said.
    if (event.detail.requestConfig?.verb === "get") return;
    const told = part.querySelector("[aria-invalid=true], .field.bad input, .notice");
    if (!told) return;
    if (told.matches(".notice")) told.tabIndex = -1;
    told.focus();
  });

  // A change that went well needs no complaint about the one before.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.requestConfig.verb !== "get") document.getElementById("notices").replaceChildren();
  });

  document.addEventListener("htmx:sendError", () => {
    const said = document.getElementById("notices");
    if (said.dataset.away) return;
    said.dataset.away = "yes";
    const notice = document.createElement("p");
    notice.className = "notice bad";
    notice.textContent = "Penstock does not answer. What is shown is as of before; it goes on by itself.";
    said.replaceChildren(notice);
  });
  document.addEventListener("htmx:afterOnLoad", () => {
    const said = document.getElementById("notices");
    if (!said.dataset.away) return;
    delete said.dataset.away;
    said.replaceChildren();
  });
};
