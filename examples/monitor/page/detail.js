// The detail of one connection.
import {$, el, setHidden, setText, visible} from "./dom.js";
import {chart} from "./chart.js";
import {connectionIDs, facts} from "./facts.js";
import {drawRoundTrips, whyNoSpin} from "./roundtrips.js";
import {drawTimeline, happenings} from "./timeline.js";
import {keyed} from "./keyed.js";
import {bytes, duration, milliseconds, number} from "./format.js";

let parts; // of the detail

/** makeDetail prepares the detail. close() is called by its button. */
export function makeDetail(close) {
  const button = el("button", {type: "button", class: "close"}, "Close");
  button.addEventListener("click", close);
  const heads = ["Client", "Server", "Datagrams", "Bytes", "Spin RTT", "Seen"];
  parts = {
    title: el("h2", {id: "detail-title", tabindex: -1}), gone: el("p", {class: "gone", hidden: ""}, "The monitor no longer keeps this connection. This is what was known last."),
    facts: el("dl", {class: "facts"}), timeline: el("div", {class: "chart"}), events: el("ol", {class: "events"}),
    rtt: el("div", {class: "chart"}), noSpin: el("p", {class: "hint"}),
    pauses: el("p", {class: "hint"}, "◆ handshake, ● spin bit, ▲ beyond the axis. A round trip by the spin bit includes the time that the ends had nothing to send."),
    paths: el("tbody"), ids: el("ul", {class: "ids"}),
  };
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...heads.map(h => el("th", {scope: "col"}, h)))), parts.paths);
  $("detail").append(el("div", {class: "title"}, parts.title, button), parts.gone, parts.facts,
    el("h3", {}, "Round trips"), parts.rtt, parts.pauses, parts.noSpin,
    el("h3", {}, "Timeline"), parts.timeline, parts.events,
    el("h3", {}, "Paths"), el("div", {class: "scroll", tabindex: 0, role: "group", "aria-label": "Paths"}, table),
    el("h3", {}, "Connection IDs"), parts.ids);
  parts.drawTimeline = chart(parts.timeline, drawTimeline);
  parts.drawRTT = chart(parts.rtt, drawRoundTrips);
}

/** openDetail shows the empty detail and moves the focus to it. */
export function openDetail(name) {
  setText(parts.title, name);
  setHidden($("detail"), false);
  document.documentElement.classList.add("detailed");
  parts.title.focus({preventScroll: false});
}

/** closeDetail hides the detail. */
export function closeDetail() {
  setHidden($("detail"), true);
  document.documentElement.classList.remove("detailed");
}

/** showDetail shows a connection, or that it is not kept any more if c is null. */
export function showDetail(c) {
  setHidden(parts.gone, Boolean(c));
  if (!c) return;
  setText(parts.title, visible(c.name));
  showFacts(c);
  parts.drawTimeline(c.paths.length ? timelineOf(c) : null);
  showEvents(c);
  const rtts = c.rtts ?? [];
  const why = whyNoSpin(rtts);
  setHidden(parts.rtt, why !== "");
  setHidden(parts.pauses, why !== "");
  setHidden(parts.noSpin, why === "");
  setText(parts.noSpin, why);
  if (!why) parts.drawRTT({first: c.first, last: c.last, rtts});
  showPaths(c);
  showIDs(c);
}

// timelineOf returns what the timeline shows, so that it is not drawn for other changes.
function timelineOf(c) {
  const {first, last, handshake, path_changes, state, ended, reason, paths} = c;
  return {first, last, handshake, path_changes, state, ended, reason, paths};
}

function showFacts(c) {
  keyed(parts.facts, facts(c), {
    key: ([name]) => name,
    make: ([name]) => el("div", {}, el("dt", {}, name), el("dd")),
    update: (e, [, value]) => setText(e.lastChild, visible(value)),
  });
}

function showEvents(c) {
  const all = happenings(c), first = all[0].at;
  keyed(parts.events, all.map((h, i) => ({...h, key: `${i} ${h.kind}`})), {
    key: h => h.key,
    make: h => el("li", {class: `mark-${h.kind}`}, el("span", {class: "at"}), " ", el("span"), " ", el("span", {class: "dim"})),
    update: (e, h) => {
      const [at, what, why] = e.querySelectorAll("span");
      setText(at, `+${duration(h.at - first)}`);
      setText(what, h.what);
      setText(why, h.why ?? "");
    },
  });
}

function showPaths(c) {
  keyed(parts.paths, c.paths, {
    key: p => `${p.client} ${p.server}`,
    make: () => el("tr", {}, el("th", {scope: "row"}), el("td"), el("td"), el("td"), el("td"), el("td")),
    update: (tr, p) => {
      const [client, server, packets, octets, rtt, seen] = tr.children;
      setText(client, p.client + (p.active ? " (in use)" : p.validated ? "" : " (not validated)"));
      setText(server, p.server);
      setText(packets, `↑ ${number(p.from_client.packets)} ↓ ${number(p.from_server.packets)}`);
      setText(octets, `↑ ${bytes(p.from_client.bytes)} ↓ ${bytes(p.from_server.bytes)}`);
      setText(rtt, p.spin_rtt_ms ? milliseconds(p.spin_rtt_ms) : "no spin bit");
      setText(seen, duration(Date.parse(p.last) - Date.parse(p.first)));
    },
  });
}

function showIDs(c) {
  keyed(parts.ids, connectionIDs(c), {
    key: pair => pair.join(),
    make: ([side, id]) => el("li", {}, el("span", {class: "dim"}, side), " ", el("code", {}, id)),
    update: () => {},
  });
}
