// The chart of datagrams per second.
import {svg} from "./dom.js";
import {box, ticks, xAxis, yAxis} from "./axis.js";
import {number} from "./format.js";

const seconds = 120; // that the server keeps

const short = n => n >= 1e6 ? `${n / 1e6}M` : n >= 1e3 ? `${n / 1e3}k` : String(n);

/** drawRates draws the rates of the last two minutes. */
export function drawRates(rates, width) {
  const height = 150, plot = box(width, height);
  const values = ticks(Math.max(1, ...rates.map(r => r.datagrams)), 3).filter(Number.isInteger);
  const top = values[values.length - 1];
  const points = key => rates.map((r, i) => {
    const x = plot.right - (plot.right - plot.left) * (rates.length - 1 - i) / (seconds - 1);
    return `${x.toFixed(1)},${(plot.bottom - (plot.bottom - plot.top) * r[key] / top).toFixed(1)}`;
  });
  const first = plot.right - (plot.right - plot.left) * (rates.length - 1) / (seconds - 1);
  const quic = points("quic");
  const now = rates[rates.length - 1] ?? {datagrams: 0, quic: 0};
  return {
    height,
    text: `Datagrams per second: now ${number(now.datagrams)}, of which ${number(now.quic)} are QUIC`,
    parts: [
      yAxis(plot, values, short),
      svg("polygon", {class: "quic-area", points: [`${first.toFixed(1)},${plot.bottom}`, ...quic, `${plot.right},${plot.bottom}`].join(" ")}),
      svg("polyline", {class: "quic-line", points: quic.join(" ")}),
      svg("polyline", {class: "all-line", points: points("datagrams").join(" ")}),
      xAxis(plot, [{at: 0, text: "2 min ago"}, {at: .5, text: "1 min ago"}, {at: 1, text: "now"}]),
    ],
  };
}
