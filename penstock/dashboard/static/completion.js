// What may stand in a search while it is written: fields inside data-completes, as the page's own
// route answers. Positions are counted in characters there, and in halves of them here.
const WAIT = 120;

const upTo = (text, units) => [...text.slice(0, units)].length;
const unitsOf = (text, characters) => [...text].slice(0, characters).join("").length;

const shown = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

class Completion {
  constructor(box, field) {
    this.box = box;
    this.field = field;
    this.timer = 0;
    this.asking = false;
    this.again = false;
    this.open = false;
    this.told = null;
    this.chosen = -1;
    this.list = document.createElement("ul");
    this.list.id = `${field.id}-options`;
    this.list.className = "options";
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", "What may stand here");
    this.list.hidden = true;
    box.append(this.list);
    for (const [name, value] of [["role", "combobox"], ["aria-autocomplete", "list"], ["aria-expanded", "false"], ["aria-controls", this.list.id]]) {
      field.setAttribute(name, value);
    }
    this.list.addEventListener("mousedown", (event) => {
      const option = event.target.closest("[role=option]");
      if (!option) return;
      event.preventDefault();
      this.take(Number(option.dataset.at));
    });
  }

  soon() {
    this.open = true;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), WAIT);
  }

  // One question at a time: the server answers few at once, also of those nobody waits for.
  async ask() {
    if (this.asking) {
      this.again = true;
      return;
    }
    this.again = false;
    this.asking = true;
    const text = this.field.value;
    const at = upTo(text, this.field.selectionEnd ?? text.length);
    const wanted = new URLSearchParams({ q: text, at });
    let told = null;
    try {
      const answer = await fetch(`${this.box.dataset.completes}?${wanted}`, { headers: { Accept: "application/json" } });
      if (answer.ok && !answer.redirected) told = await answer.json();
    } catch {
      // Nobody answers: a search is written without help then.
    }
    this.asking = false;
    if (this.again) this.ask();
    else if (told && this.open && this.field.value === text) this.show(told);
  }

  show(told) {
    this.told = told;
    this.chosen = -1;
    const options = told.suggestions.map((one, at) => {
      const option = document.createElement("li");
      option.id = `${this.list.id}-${at}`;
      option.dataset.at = at;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", "false");
      const text = document.createElement("code");
      text.textContent = one.text;
      const kind = document.createElement("span");
      kind.textContent = one.count === null ? one.kind : `${one.kind}, ${shown.format(one.count)}`;
      option.append(text, kind);
      return option;
    });
    this.list.replaceChildren(...options);
    this.list.hidden = options.length === 0;
    this.field.setAttribute("aria-expanded", String(options.length > 0));
    this.field.removeAttribute("aria-activedescendant");
  }

  close() {
    clearTimeout(this.timer);
    this.open = false;
    this.again = false;
    this.list.hidden = true;
    this.chosen = -1;
    this.field.setAttribute("aria-expanded", "false");
    this.field.removeAttribute("aria-activedescendant");
  }

  move(by) {
    const options = [...this.list.children];
    this.chosen = (this.chosen + by + options.length + (this.chosen < 0 && by < 0 ? 1 : 0)) % options.length;
    options.forEach((one, at) => one.setAttribute("aria-selected", String(at === this.chosen)));
    options[this.chosen].scrollIntoView({ block: "nearest" });
    this.field.setAttribute("aria-activedescendant", options[this.chosen].id);
  }

  take(at) {
    const { start, end, suggestions } = this.told;
    const text = this.field.value;
    const from = unitsOf(text, start);
    this.field.setRangeText(suggestions[at].text, from, unitsOf(text, end), "end");
    this.close();
    this.field.focus();
    // Behind the name of a field its values may stand.
    if (/[:.]$/.test(suggestions[at].text)) this.soon();
  }

  key(event) {
    if (event.key === "ArrowDown" && this.list.hidden) {
      event.preventDefault();
      this.open = true;
      this.ask();
    } else if (this.list.hidden) {
      // Also what is still on its way is of no use any more.
      if (event.key === "Enter" || event.key === "Escape") this.close();
      return;
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      this.move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && this.chosen >= 0) {
      event.preventDefault();
      this.take(this.chosen);
    } else if (event.key === "Tab" && !event.shiftKey && this.list.children.length) {
      event.preventDefault();
      this.take(Math.max(0, this.chosen));
    } else if (event.key === "Escape") {
      // The first one closes the list, the next one leaves the field.
      event.preventDefault();
      event.stopPropagation();
      this.close();
    } else if (event.key === "Enter") {
      this.close();
    }
  }
}

export const startCompletion = () => {
  const known = new WeakMap();
  const of = (field) => {
    const box = field.closest?.("[data-completes]");
    if (!box || !field.matches("input")) return null;
    if (!known.has(field)) known.set(field, new Completion(box, field));
    return known.get(field);
  };
  document.addEventListener("focusin", (event) => of(event.target));
  document.addEventListener("input", (event) => of(event.target)?.soon());
  document.addEventListener("focusout", (event) => of(event.target)?.close());
  // Before the keys of the page, which leave a field by Escape.
  document.addEventListener("keydown", (event) => of(event.target)?.key(event), true);
};
