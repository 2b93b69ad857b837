// Keys: "/" searches, "?" shows the keys, "g" and a letter goes to a page of the navigation.
const WAIT = 1500;

const typing = (element) =>
  element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName);

export const startKeys = () => {
  let going = 0;

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const open = document.querySelector("dialog[open]");
    if (typing(event.target)) {
      if (event.key === "Escape" && !open) event.target.blur();
      return;
    }
    if (open) return;
    if (event.key === "Escape") {
      document.querySelector("[data-question] [data-leaves]")?.click();
      return;
    }

    if (Date.now() < going) {
      going = 0;
      const link = [...document.querySelectorAll("a[data-key]")].find((one) => one.dataset.key === event.key);
      if (link) {
        event.preventDefault();
        link.click();
      }
      return;
    }
    if (event.key === "g") {
      going = Date.now() + WAIT;
    } else if (event.key === "/") {
      const field = document.querySelector("main [data-search], main input[type=search]")
        ?? document.querySelector("main input:not([type=hidden])");
      if (field) {
        event.preventDefault();
        field.closest("details")?.setAttribute("open", "");
        field.focus();
        field.select?.();
      }
    } else if (event.key === "?") {
      event.preventDefault();
      document.getElementById("keys")?.showModal();
    }
  });
};
