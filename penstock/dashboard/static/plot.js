// Plots over time: figures with data-plot. A plot whose id comes again keeps its canvas.
import { bringDrawing } from "./drawing.js";

const plots = new Map();

const colours = (figure) => ({
  line: getComputedStyle(figure).color,
  lines: [...figure.querySelectorAll(".legend li")].map((one) => getComputedStyle(one).color),
  text: getComputedStyle(figure.querySelector("figcaption")).color,
  grid: getComputedStyle(figure).borderTopColor,
});

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const two = (number) => String(number).padStart(2, "0");
const clock = (seconds, step) => {
  const at = new Date(seconds * 1000);
  if (step < 60) return at.toISOString().slice(11, 19);
  const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  return at.getUTCHours() + at.getUTCMinutes() ? time : `${at.getUTCFullYear()}-${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
};

const options = (figure, told, width) => {
  const { line, lines, text, grid } = colours(figure);
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  return {
    width,
    height: 160,
    // The same zone as everywhere else on the page.
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] } },
    axes: [{ ...axis, size: 26, values: (_plot, ticks, _axis, _space, step) => ticks.map((one) => clock(one, step)) }, { ...axis, size: 48, values: (_plot, ticks) => ticks.map((one) => short.format(one)) }],
    series: [
      {},
      ...told.series.map((one, at) => ({
        label: one.label,
        stroke: lines[at] ?? line,
        width: 1.5,
        fill: `color-mix(in srgb, ${lines[at] ?? line} 14%, transparent)`,
        points: { show: false },
      })),
    ],
  };
};

const draw = (figure) => {
  const told = JSON.parse(figure.dataset.plot);
  const data = [told.starts, ...told.series.map((one) => one.values)];
  const box = figure.querySelector(".plot-box");
  const known = plots.get(figure.id);
  if (known && known.figure !== figure && known.lines === told.series.length) {
    box.append(known.plot.root);
    known.plot.setData(data);
    known.figure = figure;
    known.watcher.disconnect();
    known.watcher.observe(box);
    return;
  }
  known?.watcher.disconnect();
  known?.plot.destroy();
  const plot = new uPlot(options(figure, told, box.clientWidth || 600), data, box);
  const watcher = new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: 160 });
  });
  watcher.observe(box);
  plots.set(figure.id, { figure, plot, watcher, lines: told.series.length });
};

export const startPlots = async () => {
  await bringDrawing();
  const all = (root) => root.querySelectorAll("[data-plot]").forEach(draw);
  all(document);
  document.addEventListener("htmx:afterSwap", (event) => all(event.detail.target));
  const again = () => {
    for (const [id, { plot, watcher }] of plots) {
      watcher.disconnect();
      plot.destroy();
      plots.delete(id);
    }
    all(document);
  };
  document.addEventListener("penstock:theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
};
