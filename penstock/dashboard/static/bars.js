// The histogram of a search (data-bars): a range that is dragged over is the next search's. What
// stands beside it (data-narrow-closes) is closed where there is no beside.
import { bringDrawing } from "./drawing.js";

const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const two = (number) => String(number).padStart(2, "0");

const day = (at) => `${two(at.getUTCMonth() + 1)}-${two(at.getUTCDate())}`;
const label = (seconds, step) => {
  const at = new Date(seconds * 1000);
  const time = `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  if (step >= 86400 || time === "00:00") return day(at);
  return step < 60 ? `${time}:${two(at.getUTCSeconds())}` : time;
};

const stamp = (seconds) => new Date(seconds * 1000).toISOString();

const draw = (figure) => {
  const told = JSON.parse(figure.dataset.bars);
  const box = figure.querySelector(".plot-box");
  const line = getComputedStyle(figure).color;
  const text = getComputedStyle(figure.querySelector("figcaption")).color;
  const grid = getComputedStyle(figure).borderTopColor;
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const last = told.starts.at(-1) + told.step;
  const narrow = (plot) => {
    const { left, width } = plot.select;
    if (width < 3) return;
    const from = plot.posToVal(left, "x");
    const until = plot.posToVal(left + width, "x");
    location.assign(told.address.replace("SINCE", encodeURIComponent(stamp(from))).replace("UNTIL", encodeURIComponent(stamp(until))));
  };
  const plot = new uPlot({
    width: box.clientWidth || 600,
    height: 120,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
    scales: {
      x: { range: [told.starts[0], last] },
      y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.08 : 1] },
    },
    axes: [
      { ...axis, size: 26, grid: { show: false }, values: (_plot, ticks, _axis, _space, step) => ticks.map((one) => label(one, step)) },
      { ...axis, size: 48, values: (_plot, ticks) => ticks.map((one) => (Number.isInteger(one) ? short.format(one) : "")) },
    ],
    series: [
      {},
      {
        label: "Events",
        fill: `color-mix(in srgb, ${line} 65%, transparent)`,
        width: 0,
        paths: uPlot.paths.bars({ align: 1, size: [0.92, Infinity], gap: 1 }),
        points: { show: false },
      },
    ],
    hooks: { setSelect: [narrow] },
  }, [told.starts, told.counts], box);
  figure.querySelector("[data-drag-hint]").hidden = false;
  const watcher = new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0 && width !== plot.width) plot.setSize({ width, height: 120 });
  });
  watcher.observe(box);
  return { plot, watcher };
};

export const startBars = () => {
  const drawn = new Map();
  const all = async () => {
    for (const [figure, { plot, watcher }] of drawn) {
      if (figure.isConnected) continue;
      watcher.disconnect();
      plot.destroy();
      drawn.delete(figure);
    }
    if (!document.querySelector("[data-bars]")) return;
    await bringDrawing();
    for (const figure of document.querySelectorAll("[data-bars]")) {
      if (!drawn.has(figure)) drawn.set(figure, draw(figure));
    }
  };
  const again = () => {
    for (const { plot, watcher } of drawn.values()) {
      watcher.disconnect();
      plot.destroy();
    }
    drawn.clear();
    all();
  };
  const narrow = matchMedia("(max-width: 62rem)");
  const close = () => {
    for (const box of document.querySelectorAll("[data-narrow-closes]")) box.open = !narrow.matches;
  };
  all();
  close();
  narrow.addEventListener("change", close);
  document.addEventListener("htmx:afterSwap", (event) => {
    all();
    if (event.detail.target.id === "page") close();
  });
  document.addEventListener("penstock:theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

  // Alt turns a value of a facet into its exclusion.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-not]");
    if (!link || !event.altKey) return;
    event.preventDefault();
    location.assign(link.dataset.not);
  });
};
