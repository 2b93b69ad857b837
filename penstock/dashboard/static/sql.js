// The editor of SQL: line numbers, Ctrl+Enter, examples, and a history that stays in this browser.
const MOST = 30;

const form = document.querySelector("[data-sql]");
const text = form.querySelector("textarea");
const gutter = form.querySelector("[data-gutter]");
const result = document.getElementById("result");
const history = document.querySelector("[data-history]");
const name = `penstock.sql.${form.dataset.owner}`;

const number = (bad = 0) => {
  const lines = text.value.split("\n").length;
  gutter.replaceChildren();
  for (let line = 1; line <= lines; line += 1) {
    const one = document.createElement(line === bad ? "span" : "i");
    if (line === bad) one.className = "wrong";
    one.textContent = line;
    gutter.append(one, "\n");
  }
  gutter.scrollTop = text.scrollTop;
};
const badLine = () => Number(result.querySelector("[data-bad-line]")?.dataset.badLine || 0);

const kept = () => {
  try {
    const found = JSON.parse(localStorage.getItem(name) ?? "[]");
    return Array.isArray(found) ? found.filter((one) => typeof one === "string") : [];
  } catch {
    return [];
  }
};
const keep = (all) => {
  try {
    localStorage.setItem(name, JSON.stringify(all.slice(0, MOST)));
  } catch {
    // A browser that keeps nothing has no history.
  }
};
const put = (statement) => {
  text.value = statement;
  number();
  text.focus();
};
const list = () => {
  const all = kept();
  history.hidden = all.length === 0;
  history.querySelector("[data-history-list]").replaceChildren(...all.map((statement) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = statement.replace(/\s+/g, " ").slice(0, 120);
    button.title = statement.slice(0, 1000);
    button.addEventListener("click", () => put(statement));
    item.append(button);
    return item;
  }));
};

text.addEventListener("input", () => number());
text.addEventListener("scroll", () => { gutter.scrollTop = text.scrollTop; });
new ResizeObserver(() => { gutter.style.height = `${text.offsetHeight}px`; }).observe(text);
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.querySelector("button.first").click();
  }
});
document.addEventListener("click", (event) => {
  const example = event.target.closest("[data-statement]");
  if (example && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    put(example.dataset.statement);
  }
  if (event.target.closest("[data-forget]")) {
    localStorage.removeItem(name);
    list();
    text.focus();
  }
});
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== result) return;
  number(badLine());
  if (!result.querySelector("[data-ran]")) return;
  const statement = text.value.trim();
  keep([statement, ...kept().filter((one) => one !== statement)]);
  list();
});
number(badLine());
list();
