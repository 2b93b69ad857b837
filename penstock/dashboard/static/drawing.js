// uPlot, where there is something to draw: a script that puts its name on the window, and a style
// sheet, which ours come after.
const brought = (element) => new Promise((done, failed) => {
  element.addEventListener("load", done);
  element.addEventListener("error", () => failed(new Error("uPlot did not come")));
  document.head.prepend(element);
});

const bring = () => {
  const script = document.createElement("script");
  const styles = document.createElement("link");
  script.src = new URL("./vendor/uPlot.iife.min.js", import.meta.url).href;
  styles.href = new URL("./vendor/uPlot.min.css", import.meta.url).href;
  styles.rel = "stylesheet";
  return Promise.all([brought(script), brought(styles)]);
};

let coming = null;

export const bringDrawing = () => {
  coming ??= bring();
  return coming;
};
