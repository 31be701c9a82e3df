// The chart of a connection's round trips.
import {svg} from "./dom.js";
import {box, spans, ticks, xAxis, yAxis} from "./axis.js";
import {clock, milliseconds} from "./format.js";

/** whyNoSpin says why there is no chart, or returns "". */
export function whyNoSpin(rtts) {
  if (rtts.some(r => r.by === "spin")) return "";
  return rtts.length ?
    `No spin bit: the handshake had a round trip of ${milliseconds(rtts[0].ms)}, and later ones are not known.` :
    "No round trip is known: the handshake was not seen, and there is no spin bit.";
}

/**
 * reach returns the longest round trip that the axis has room for. A few that are much longer
 * than most, such as those with a pause in them, are beyond the axis.
 */
export function reach(rtts) {
  const all = rtts.map(r => r.ms).sort((a, b) => a - b), usual = 5 * all[Math.floor(all.length / 2)];
  return all.findLast(ms => ms <= usual);
}

/** drawRoundTrips draws the round trips over the time since the first packet. */
export function drawRoundTrips({first, last, rtts}, width) {
  const height = 170, plot = box(width, height, 60);
  const values = ticks(reach(rtts), 4), top = values[values.length - 1];
  const begin = Date.parse(first), all = rtts.map(r => ({...r, at: Math.max(Date.parse(r.time) - begin, 0)}));
  const span = Math.max(Date.parse(last) - begin, all[all.length - 1].at, 1);
  const x = r => plot.left + (plot.right - plot.left) * r.at / span;
  const y = r => plot.bottom - (plot.bottom - plot.top) * Math.min(r.ms / top, 1);
  const spin = all.filter(r => r.by === "spin");
  const dots = all.map(r => {
    const dot = r.ms > top ?
      svg("path", {class: "beyond", d: `M${x(r)},${plot.top - 5}l5,8h-10z`}) : r.by === "spin" ?
      svg("circle", {class: "spin-dot", cx: x(r), cy: y(r), r: all.length > 60 ? 2 : 3}) :
      svg("path", {class: "handshake-dot", d: `M${x(r)},${y(r) - 6}l6,6l-6,6l-6,-6z`});
    dot.append(svg("title", {}, `${milliseconds(r.ms)} by the ${r.by === "spin" ? "spin bit" : "handshake"}, ${clock(r.time)}`));
    return dot;
  });
  const least = Math.min(...all.map(r => r.ms)), most = Math.max(...all.map(r => r.ms));
  return {
    height,
    text: `Round trips: ${all.length} from ${milliseconds(least)} to ${milliseconds(most)}, the latest ${milliseconds(all[all.length - 1].ms)}`,
    parts: [
      yAxis(plot, values, v => v >= 1000 ? `${v / 1000} s` : `${v} ms`),
      svg("polyline", {class: "spin-line", points: spin.map(r => `${x(r).toFixed(1)},${y(r).toFixed(1)}`).join(" ")}),
      ...dots,
      xAxis(plot, spans(span, 6)),
    ],
  };
}
