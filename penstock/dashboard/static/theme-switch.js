// The switch between the system's theme, light and dark.
const NEXT = { system: "light", light: "dark", dark: "system" };

export const startThemeSwitch = () => {
  const root = document.documentElement;
  const button = document.querySelector("[data-theme-switch]");
  if (!button) return;
  const name = button.querySelector("[data-theme-name]");
  name.textContent = root.dataset.theme ?? "system";

  button.addEventListener("click", () => {
    const next = NEXT[name.textContent];
    if (next === "system") {
      delete root.dataset.theme;
      localStorage.removeItem("penstock-theme");
    } else {
      root.dataset.theme = next;
      localStorage.setItem("penstock-theme", next);
    }
    name.textContent = next;
    document.dispatchEvent(new Event("penstock:theme"));
  });
};
