// The figures at the top of the page.
import {$, el, setText} from "./dom.js";
import {keyed} from "./keyed.js";
import {number} from "./format.js";

/** showFigures shows the figures of an answer. */
export function showFigures(a) {
  const now = a.rates[a.rates.length - 1] ?? {quic: 0};
  const all = [
    ["connections", number(a.total)],
    ["QUIC datagrams", number(a.tracked)],
    ["QUIC datagrams a second", number(now.quic)],
    ["path changes", number(a.path_changes)],
    ["packets lost in the capture", number(a.lost)],
  ];
  keyed($("figures"), all, {
    key: ([what]) => what,
    make: ([what]) => el("div", {}, el("dt", {}, what), el("dd")),
    update: (e, [, value]) => setText(e.lastChild, value),
  });
}
