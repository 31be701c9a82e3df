// Round values for axes, and the axes of a chart.
import {svg} from "./dom.js";

/** ticks returns round values from 0 to at least max, about n of them. */
export function ticks(max, n) {
  if (!(max > 0)) return [0, 1];
  const raw = max / n, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= raw);
  const out = [];
  for (let i = 0; ; i++) {
    out.push(Number((i * step).toPrecision(12)));
    if (i * step >= max * (1 - 1e-9)) return out;
  }
}

/**
 * box returns the plot of a chart: where values are drawn, between a left margin for the
 * values and a bottom one for the times.
 */
export function box(width, height, left = 52, bottom = 22) {
  return {left, top: 8, right: width - 10, bottom: height - bottom};
}

/** yAxis draws lines for values from 0 to the last of them, with their labels. */
export function yAxis(plot, values, label) {
  const top = values[values.length - 1];
  const g = svg("g", {class: "axis"});
  for (const v of values) {
    const y = plot.bottom - (plot.bottom - plot.top) * v / top;
    g.append(svg("line", {x1: plot.left, x2: plot.right, y1: y, y2: y}),
      svg("text", {x: plot.left - 6, y: y + 4, "text-anchor": "end"}, label(v)));
  }
  return g;
}

/**
 * xAxis writes labels at places of the range from 0 to 1 below the plot. Those that would
 * touch the one before are left out.
 */
export function xAxis(plot, places) {
  const g = svg("g", {class: "axis"});
  let free = -Infinity;
  for (const {at, text} of places) {
    const x = plot.left + (plot.right - plot.left) * at;
    const anchor = at < .05 ? "start" : at > .95 ? "end" : "middle";
    const width = 7 * text.length;
    const begin = anchor === "start" ? x : anchor === "end" ? x - width : x - width / 2;
    if (begin < free) continue;
    free = begin + width + 8;
    g.append(svg("text", {x, y: plot.bottom + 16, "text-anchor": anchor}, text));
  }
  return g;
}

const second = 1000, minute = 60 * second, hour = 60 * minute;
const steps = [1, 2, 5, 15, 30].flatMap(n => [n * second, n * minute]).concat([1, 2, 6, 12, 24].map(n => n * hour)).sort((a, b) => a - b);

/** spans returns the places of at most n round times in a span of milliseconds. */
export function spans(ms, n) {
  const step = ms < n * second ? ticks(ms, n)[1] : steps.find(s => s * n >= ms) ?? Math.ceil(ms / n / (24 * hour)) * 24 * hour;
  const [unit, name] = step < second ? [1, "ms"] : step < minute ? [second, "s"] : step < hour ? [minute, "min"] : [hour, "h"];
  const out = [];
  for (let v = 0; v <= ms; v += step) out.push({at: v / ms, text: `${Number((v / unit).toPrecision(6))} ${name}`});
  return out;
}
