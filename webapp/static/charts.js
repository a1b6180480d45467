// Charts with a cursor in the place of the pictures that the server drew, of the same numbers: hover or arrow keys for the
// values, drag to zoom, double click or − to zoom out. A range is an address: the page for it is asked for anew.

import { plotter, refreshCharts } from "./live.js";

const AXIS_PX = 56; // as wide as the axis of the server's pictures, so that the lane above stands over the same times
const RIGHT_PX = 12;
const HEIGHT_PX = 190;
const LEAST_S = 10;
const BANDS_MAX = 2; // with more lines than this their bands would hide each other
const section = document.getElementById("charts");
const shown = new Map(); // id of a chart → { plot, chart }
let numbers = null;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const text = (value) => (value == null ? "–" : String(value));

// The server's zone by its name, or null where that is none that this browser knows: its offset counts then.
function zoneOf(name) {
  try {
    if (name) new Intl.DateTimeFormat("en-GB", { timeZone: name });
    return name;
  } catch {
    return null;
  }
}

// Times in the server's zone, as everywhere on the page.
function formats() {
  const zone = numbers.zone ?? "UTC";
  const make = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone, hourCycle: "h23", ...options });
  const shift = numbers.zone ? 0 : numbers.offset;
  const of = (format) => (seconds) => format.format(new Date((seconds + shift) * 1000));
  return {
    second: of(make({ hour: "2-digit", minute: "2-digit", second: "2-digit" })),
    minute: of(make({ hour: "2-digit", minute: "2-digit" })),
    day: of(make({ day: "numeric", month: "short" })),
    full: of(make({ day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" })),
    // a Date whose local parts are the zone's: what uPlot looks for round times with
    date: (seconds) => (numbers.zone ? uPlot.tzDate(new Date(seconds * 1000), zone) : new Date(
      (seconds + shift) * 1000 + new Date(seconds * 1000).getTimezoneOffset() * 60000)),
  };
}

function labels(splits, format) {
  const step = splits.length > 1 ? splits[1] - splits[0] : 0;
  return splits.map((at, index) => {
    if (step >= 86400) return format.day(at);
    const clock = step < 60 ? format.second(at) : format.minute(at);
    const day = format.day(at);
    return index > 0 && day !== format.day(splits[index - 1]) ? `${clock}\n${day}` : clock;
  });
}

// Rows for uPlot: each step's value stands at its middle; of stacked series the sums from below.
function rows({ series, stacked }) {
  const { start, step, steps } = numbers;
  const times = Array.from({ length: steps }, (_, at) => start + (at + 0.5) * step);
  if (!stacked) return [times, ...series.map((one) => one.values)];
  const below = new Array(steps).fill(0);
  return [times, ...series.map((one) => one.values.map((value, at) => (value == null ? null : (below[at] += value))))];
}

// The last step of which anything is known: what the legend tells where no cursor is.
function newest(chart) {
  for (let at = numbers.steps - 1; at >= 0; at -= 1) {
    if (chart.series.some((one) => one.values[at] != null)) return at;
  }
  return null;
}

function gaps(plot) {
  const { ctx } = plot;
  const { start, step } = numbers;
  const { top, height, left, width } = plot.bbox;
  ctx.save();
  ctx.lineWidth = devicePixelRatio;
  for (const [from, to] of numbers.gaps) {
    const [x0, x1] = [from, to].map((edge) => plot.valToPos(start + edge * step, "x", true));
    ctx.save();
    ctx.beginPath();
    ctx.rect(Math.max(left, x0), top, Math.min(left + width, x1) - Math.max(left, x0), height);
    ctx.clip();
    ctx.fillStyle = css("--track");
    ctx.fillRect(x0, top, x1 - x0, height);
    ctx.globalAlpha = 0.35;
    ctx.strokeStyle = css("--soft");
    ctx.beginPath();
    for (let x = x0 - height; x < x1; x += 9 * devicePixelRatio) {
      ctx.moveTo(x, top + height);
      ctx.lineTo(x + height, top);
    }
    ctx.stroke();
    ctx.restore();
  }
  ctx.restore();
}

// From the least to the most of each step, where few enough lines are shown.
function bands(plot, chart) {
  const visible = chart.series.map((one, at) => ({ ...one, at })).filter(({ at }) => plot.series[at + 1].show);
  if (chart.stacked || visible.length > BANDS_MAX) return;
  const { ctx } = plot;
  const { start, step } = numbers;
  ctx.save();
  ctx.globalAlpha = 0.22;
  for (const { low, high, at } of visible) {
    if (!low) continue;
    ctx.fillStyle = css(`--c${at % 10}`);
    low.forEach((least, slot) => {
      if (least == null) return;
      const [x0, x1] = [slot, slot + 1].map((edge) => plot.valToPos(start + edge * step, "x", true));
      const [y0, y1] = [high[slot], least].map((value) => plot.valToPos(value, "y", true));
      ctx.fillRect(x0, y0, x1 - x0, Math.max(1, y1 - y0));
    });
  }
  ctx.restore();
}

function events(plot) {
  const { ctx } = plot;
  const { top, height } = plot.bbox;
  ctx.save();
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.lineWidth = devicePixelRatio;
  for (const { at, kind } of numbers.marks) {
    if (at < numbers.start || at > numbers.start + numbers.steps * numbers.step) continue;
    ctx.strokeStyle = css(`--${kind}`);
    const x = Math.round(plot.valToPos(at, "x", true));
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
  }
  ctx.restore();
}

let leaving = false; // a selection is told by every chart that follows the same cursor
addEventListener("pageshow", () => {
  leaving = false;
});

function goTo(from, to) {
  if (leaving) return;
  leaving = true;
  const now = Date.now() / 1000;
  const end = Math.min(to, Math.max(now, numbers.start + numbers.steps * numbers.step));
  const iso = (seconds) => `${new Date(Math.max(0, seconds) * 1000).toISOString().slice(0, 19)}Z`;
  sessionStorage.setItem("scroll", String(scrollY));
  location.assign(`${location.pathname}?from=${iso(Math.floor(from))}&to=${iso(Math.max(Math.ceil(end), Math.floor(from) + LEAST_S))}`);
}

function zoom(plot, factor) {
  const span = numbers.steps * numbers.step;
  const at = plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") : numbers.start + span / 2;
  const left = (at - numbers.start) / span;
  goTo(at - span * factor * left, at + span * factor * (1 - left));
}

// The cursor is one for all charts; the lane shows where it stands.
function point(plot) {
  const line = section.querySelector(".lanebox");
  let mark = line.querySelector(".here");
  if (!mark) {
    mark = document.createElement("span");
    mark.className = "here";
    line.append(mark);
  }
  const inside = plot.cursor.left >= 0;
  mark.hidden = !inside;
  if (inside) mark.style.left = `${(100 * plot.cursor.left) / (plot.bbox.width / devicePixelRatio)}%`;
}

function options(chart, width) {
  const format = formats();
  const colour = (at) => css(`--c${at % 10}`);
  const grid = { stroke: css("--line"), width: 1, dash: [3, 3] };
  const axis = { stroke: css("--soft"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const end = numbers.start + numbers.steps * numbers.step;
  return {
    width,
    height: HEIGHT_PX,
    padding: [8, RIGHT_PX, 0, 0],
    tzDate: format.date,
    scales: {
      x: { time: true, range: () => [numbers.start, end] },
      y: { range: () => [0, shown.get(chart.id)?.chart.top ?? chart.top] },
    },
    cursor: {
      sync: { key: "host" },
      drag: { x: true, y: false, setScale: false },
      focus: { prox: 24 },
      points: { size: 6 },
      bind: { dblclick: (plot) => () => zoom(plot, 3) },
    },
    focus: { alpha: chart.stacked ? 1 : 0.35 },
    legend: { isolate: true, markers: { width: 0, fill: (_, at) => (at ? colour(at - 1) : "transparent") } },
    axes: [
      { ...axis, values: (_, splits) => labels(splits, format), space: 70, size: 34 },
      { ...axis, size: AXIS_PX, values: (_, splits) => splits.map(String) },
    ],
    series: [
      {
        label: "time",
        value: (_, at) => {
          const last = at ?? newest(shown.get(chart.id)?.chart ?? chart);
          if (last == null) return "–";
          return format.full(at ?? numbers.start + (last + 0.5) * numbers.step);
        },
      },
      ...chart.series.map((one, at) => ({
        label: one.name,
        stroke: colour(at),
        width: chart.stacked ? 0 : 1.5,
        fill: chart.stacked && at === 0 ? colour(at) : undefined,
        points: { show: false },
        value: (_, __, ___, under) => {
          const drawn = shown.get(chart.id)?.chart ?? chart;
          const now = drawn.series[at] ?? one;
          const index = under ?? newest(drawn);
          const spread = index != null && now.low?.[index] != null && now.low[index] !== now.high[index];
          return index == null ? "–" : `${text(now.values[index])}${spread ? ` (${now.low[index]}–${now.high[index]})` : ""} ${chart.unit}`;
        },
      })),
    ],
    bands: chart.stacked ? chart.series.slice(1).map((_, at) => ({ series: [at + 2, at + 1], fill: colour(at + 1) })) : [],
    hooks: {
      drawClear: [gaps],
      drawAxes: [(plot) => bands(plot, shown.get(chart.id)?.chart ?? chart)],
      draw: [events],
      setCursor: [point],
      setSelect: [
        (plot) => {
          if (plot.select.width < 6) return;
          goTo(plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x"));
        },
      ],
    },
  };
}

function keys(holder, plot) {
  holder.tabIndex = 0;
  holder.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { width } = plot.bbox;
    const step = Math.max(1, width / devicePixelRatio / numbers.steps);
    const at = plot.cursor.left >= 0 ? plot.cursor.left : width / devicePixelRatio;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const left = at + (event.key === "ArrowLeft" ? -step : step);
      plot.setCursor({ left: Math.min(Math.max(0, left), width / devicePixelRatio - 1), top: 20 });
    } else if (event.key === "+") zoom(plot, 0.5);
    else if (event.key === "-") zoom(plot, 2);
    else return;
    event.preventDefault();
  });
}

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const found = [...shown.values()].find(({ holder }) => holder === target);
    if (found && target.clientWidth && found.plot.width !== target.clientWidth) {
      found.plot.setSize({ width: target.clientWidth, height: HEIGHT_PX });
    }
  }
});

function put(chart) {
  const known = shown.get(chart.id);
  const names = JSON.stringify(chart.series.map((one) => one.name).concat(chart.unit));
  const holder = section.querySelector(`[data-chart="${chart.id}"]`);
  if (!holder) return;
  if (known?.names === names && known.holder === holder) {
    known.chart = chart;
    known.plot.setData(rows(chart), true);
    return;
  }
  known?.plot.destroy();
  holder.replaceChildren();
  holder.dataset.drawn = "";
  holder.setAttribute("role", "group");
  holder.setAttribute("aria-label", holder.dataset.label);
  holder.classList.toggle("stacked", chart.stacked);
  const plot = new uPlot(options(chart, holder.clientWidth || 600), rows(chart), holder);
  if (!known || known.holder !== holder) {
    keys(holder, plot);
    sizes.observe(holder);
  }
  shown.set(chart.id, { plot, chart, names, holder });
}

function draw(plots) {
  numbers = { ...plots, zone: zoneOf(plots.zone) };
  plots.charts.forEach(put);
}

// Should a browser not manage it, the server's pictures come back.
function drawOrNot(plots) {
  try {
    draw(plots);
  } catch (error) {
    plotter.draw = null;
    for (const holder of section.querySelectorAll("[data-drawn]")) holder.removeAttribute("data-drawn");
    refreshCharts(section.dataset.plots);
    throw error;
  }
}

function again() {
  for (const [id, { plot }] of shown) {
    plot.destroy();
    shown.delete(id);
  }
  if (numbers) draw(numbers);
}

if (section && window.uPlot) {
  plotter.draw = drawOrNot;
  await refreshCharts(section.dataset.plots);
  for (const hint of document.querySelectorAll(".zoomhint")) hint.hidden = false;
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  const scroll = sessionStorage.getItem("scroll");
  sessionStorage.removeItem("scroll");
  if (scroll !== null) scrollTo(0, Number(scroll));
}
