"use strict";
// Values from the network are inserted as text, never as markup.
const svgSpace = "http://www.w3.org/2000/svg";
const $ = id => document.getElementById(id);

function el(tag, className, ...children) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  e.append(...children);
  return e;
}

function svg(tag, attributes, ...children) {
  const e = document.createElementNS(svgSpace, tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}

const number = n => Math.round(n).toLocaleString("en");

function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return n.toFixed(i ? 1 : 0) + " " + units[i];
}

const ms = v => v >= 100 ? v.toFixed(0) + " ms" : v >= 1 ? v.toFixed(1) + " ms" : v.toFixed(2) + " ms";

function duration(millis) {
  if (millis < 1000) return millis.toFixed(0) + " ms";
  if (millis < 120e3) return (millis / 1000).toFixed(1) + " s";
  return (millis / 60e3).toFixed(1) + " min";
}

function figures(d) {
  const rate = d.rates && d.rates.length ? d.rates[d.rates.length - 1] : {quic: 0};
  const all = [
    [number(d.total), d.total === 1 ? "connection" : "connections"],
    [number(d.stats.tracked), "QUIC datagrams"],
    [number(rate.quic), "a second now"],
    [number(d.moves), d.moves === 1 ? "path change" : "path changes"],
    [number(d.stats.source_dropped), "lost in capture"],
  ];
  $("figures").replaceChildren(...all.map(([n, what]) => {
    const f = el("div", "figure", el("b", "", n), el("span", "", what));
    return f;
  }));
}

function area(rates, key, max, className) {
  const step = 1200 / 119, from = 120 - rates.length;
  const points = rates.map((r, i) => `${((from + i) * step).toFixed(1)},${(118 - 112 * r[key] / max).toFixed(1)}`);
  if (points.length < 1) return svg("path", {});
  const x0 = (from * step).toFixed(1);
  return svg("path", {class: className, d: `M${x0},120L${points.join("L")}L1200,120Z`});
}

function rates(d) {
  const all = d.rates || [];
  const max = Math.max(1, ...all.map(r => r.packets));
  $("rates").replaceChildren(area(all, "packets", max, "area-all"), area(all, "quic", max, "area-quic"));
}

function spark(values) {
  const w = 150, h = 34, s = svg("svg", {viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "Round trips"});
  if (!values || !values.length) return s;
  const lo = Math.min(...values), hi = Math.max(...values), range = hi - lo || 1;
  const at = values.map((v, i) => [
    values.length === 1 ? w - 4 : 3 + (w - 7) * i / (values.length - 1),
    hi === lo ? h / 2 : h - 4 - (h - 8) * (v - lo) / range]);
  s.append(svg("polyline", {class: "spark", points: at.map(p => p.map(v => v.toFixed(1)).join(",")).join(" ")}));
  const [x, y] = at[at.length - 1];
  s.append(svg("circle", {class: "spark-dot", cx: x, cy: y, r: 2.8}));
  s.append(svg("title", {}, `${ms(lo)} to ${ms(hi)}`));
  return s;
}

// timeline draws a bar for each path, from its first to its last packet, and a line for
// each change of path.
function timeline(c) {
  const t0 = Date.parse(c.first), t1 = Math.max(Date.parse(c.last), t0 + 1), w = 1180, left = 8;
  const lane = 22, h = c.paths.length * lane + 20;
  const x = t => left + (w - 2 * left) * (Date.parse(t) - t0) / (t1 - t0);
  const s = svg("svg", {class: "timeline", viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": "Paths"});
  c.paths.forEach((p, i) => {
    const from = Math.min(x(p.first), w - 14), to = Math.max(x(p.last), from + 6), y = 14 + i * lane;
    const box = svg("rect", {class: `lane p${i % 4}${p.active ? "" : " idle"}`, x: from, y: y, width: to - from, height: 6, rx: 3});
    box.append(svg("title", {}, `${p.client} – ${p.server}: ${number(p.from_client.packets)} out, ${number(p.from_server.packets)} in`));
    s.append(box);
    const end = from > w * .65;
    s.append(svg("text", {class: "lane-text", x: end ? to : from + 6, y: y - 3, "text-anchor": end ? "end" : "start"},
      `${p.client}${p.validated ? "" : " (no answer)"}${p.spin_rtt_ms ? ", " + ms(p.spin_rtt_ms) : ""}`));
  });
  (c.path_changes || []).forEach(m => {
    const at = Math.min(Math.max(x(m.time), 2), w - 2), end = at > w * .7;
    const line = svg("line", {class: "marker", x1: at, x2: at, y1: 2, y2: h});
    line.append(svg("title", {}, `${m.kind} (${m.confidence}): ${m.evidence}`));
    s.append(line, svg("text", {class: "marker-text", x: at + (end ? -6 : 6), y: h - 5, "text-anchor": end ? "end" : "start"},
      m.kind.replace("_", " ")));
  });
  return s;
}

function connection(c) {
  const p = c.paths.find(p => p.active) || c.paths[0];
  const name = el("div", "name", el("i", "dot"), c.sni || (p ? p.server : "?"));
  name.title = c.evidence;
  const badge = text => name.append(el("span", "badge", text));
  badge(c.version_name);
  (c.alpn || []).slice(0, 3).forEach(badge);
  if (c.post_quantum) badge("post-quantum");
  if (c.ech) badge("ECH");
  if (c.retries) badge("Retry");
  if (c.version_negotiations) badge("negotiated");
  if (c.zero_rtt) badge("0-RTT");
  const hs = c.handshake || {};
  const whole = (hs.server_side_ms || 0) + (hs.client_side_ms || 0);
  const rtts = c.rtts && c.rtts.length ? c.rtts : whole ? [whole] : [];
  const now = c.spin_rtt_ms || rtts[rtts.length - 1];
  const e = el("article", "connection " + c.confidence,
    el("div", "", name, el("div", "addresses", p ? `${p.client} → ${p.server}` : "", el("span", "small",
      `  ${c.confidence}${c.ja4 ? ", " + c.ja4 : ""}`))),
    el("div", "rtt", spark(rtts), el("b", "", now ? ms(now) : "–")),
    el("div", "traffic", `↑ ${bytes(c.from_client.bytes)}  ↓ ${bytes(c.from_server.bytes)}`,
      el("div", "small", `${number(c.from_client.packets + c.from_server.packets)} packets in ${duration(Date.parse(c.last) - Date.parse(c.first))}`)));
  if (c.paths.length > 1 || (c.path_changes || []).length) e.append(timeline(c));
  return e;
}

function show(d) {
  figures(d);
  rates(d);
  $("connections").replaceChildren(...(d.connections.length ? d.connections.map(connection) :
    [el("p", "empty", d.total ? "No connection matches the filter." : "No QUIC connections yet.")]));
  $("state").textContent = d.connections.length < d.total ?
    `${number(d.connections.length)} of ${d.found < d.total ? number(d.found) + " found among " : ""}${number(d.total)} shown` : "";
  document.documentElement.dataset.ready = "yes";
}

// poll fetches the data every second, and at once when the filter changes.
let timer = 0, asked = 0;
async function poll() {
  clearTimeout(timer);
  const turn = ++asked;
  try {
    const r = await fetch("data.json?q=" + encodeURIComponent($("filter").value), {cache: "no-store"});
    const d = await r.json();
    if (turn !== asked) return;
    show(d);
  } catch {
    $("state").textContent = "The monitor has ended. The page shows its last state.";
    return;
  }
  timer = setTimeout(poll, 1000);
}

$("filter").addEventListener("input", poll);
poll();
