// The timeline of a connection: its paths, and what has happened, by numbers that a list
// explains.
import {svg} from "./dom.js";
import {spans, xAxis} from "./axis.js";
import {duration, milliseconds, number, words} from "./format.js";
import {spread} from "./labels.js";

const badge = 20, lane = 30;

/** happenings returns what has happened to a connection, the earliest first. */
export function happenings(c) {
  const first = Date.parse(c.first), handshake = c.handshake ?? {};
  const all = [{at: first, what: "first packet", kind: "begin"}];
  if (handshake.server_side_ms) {
    all.push({at: first + handshake.server_side_ms, what: `the server has answered, after ${milliseconds(handshake.server_side_ms)}`, kind: "handshake"});
  }
  if (handshake.server_side_ms && handshake.client_side_ms) {
    const whole = handshake.server_side_ms + handshake.client_side_ms;
    all.push({at: first + whole, what: `the client has answered: a round trip of ${milliseconds(whole)}`, kind: "handshake"});
  }
  for (const m of c.path_changes ?? []) {
    all.push({at: Date.parse(m.time), what: `${words(m.kind)} from ${m.from} to ${m.to}`, why: `${m.confidence}: ${m.evidence}`, kind: "move"});
  }
  const over = c.state === "ended";
  if (over) all.push({at: Date.parse(c.ended?.time ?? c.last), what: `ended: ${c.reason}`, kind: "end"});
  else all.push({at: Date.parse(c.last), what: "latest packet", kind: "now"});
  return all.sort((a, b) => a.at - b.at);
}

/** drawTimeline draws the paths as bars and the happenings as numbers. */
export function drawTimeline(c, width) {
  const all = happenings(c), begin = all[0].at, span = Math.max(all[all.length - 1].at - begin, 1);
  const plot = {left: 12, right: width - 12};
  const x = at => plot.left + (plot.right - plot.left) * Math.min(Math.max((at - begin) / span, 0), 1);
  const bottom = c.paths.length * lane + 4;
  const places = spread(all.map(h => x(h.at)), badge + 2, plot.left, plot.right);
  const rows = 1 + Math.max(...places.map(p => p.row));
  plot.bottom = bottom + 16 + rows * (badge + 4);
  return {
    height: plot.bottom + 24,
    text: `Timeline: ${c.paths.length} paths, ${all.length} events in ${duration(span)}`,
    parts: [
      ...all.map((h, i) => leader(h, x(h.at), bottom, places[i])), // behind all texts
      ...c.paths.map((p, i) => path(p, i, plot, x)),
      ...all.map((h, i) => mark(h, i, bottom, places[i])),
      xAxis(plot, spans(span, 5)),
    ],
  };
}

// path draws a path: its addresses, and a bar from its first to its last packet.
function path(p, i, plot, x) {
  const from = x(Date.parse(p.first)), to = Math.max(x(Date.parse(p.last)), from + 4), y = i * lane;
  return svg("g", {class: `lane lane-${i % 4}${p.active ? "" : " idle"}`},
    svg("title", {}, `${p.client} – ${p.server}: ${number(p.from_client.packets)} datagrams from the client, ${number(p.from_server.packets)} from the server`),
    svg("text", {x: plot.left + 8, y: y + 14}, `${i + 1}. ${p.client}${p.active ? " (in use)" : p.validated ? "" : " (not validated)"}`),
    svg("rect", {x: from, y: y + 19, width: to - from, height: 6, rx: 3}));
}

const badgeTop = (bottom, place) => bottom + 14 + place.row * (badge + 4);

// leader draws a line from the time of a happening to its number.
function leader(h, x, bottom, place) {
  return svg("path", {class: `leader mark-${h.kind}`, d: `M${x},2V${bottom}L${place.x},${badgeTop(bottom, place)}`});
}

// mark draws the number of a happening.
function mark(h, i, bottom, place) {
  const y = badgeTop(bottom, place);
  return svg("g", {class: `mark mark-${h.kind}`},
    svg("title", {}, h.what),
    svg("rect", {x: place.x - badge / 2, y, width: badge, height: badge, rx: badge / 2}),
    svg("text", {x: place.x, y: y + 14, "text-anchor": "middle"}, i + 1));
}
