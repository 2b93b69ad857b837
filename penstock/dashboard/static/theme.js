// Runs before anything is painted, so that a page never flashes in the other theme.
// "light" and "dark" are remembered; without a word of it the system decides.
(() => {
  const known = localStorage.getItem("penstock-theme");
  if (known === "light" || known === "dark") document.documentElement.dataset.theme = known;
})();
