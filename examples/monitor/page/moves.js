// The list of the latest path changes.
import {$, el, setHidden, setText, visible} from "./dom.js";
import {keyed} from "./keyed.js";
import {clock, words} from "./format.js";

const shown = 5;

// short returns the new address, or only its port if the rest is as before.
function short(from, to) {
  const host = address => address.slice(0, address.lastIndexOf(":"));
  return host(from) === host(to) ? to.slice(host(to).length) : to;
}

/** showMoves shows the latest path changes. open(number) opens a connection. */
export function showMoves(moves, open) {
  setHidden($("no-moves"), moves.length > 0);
  keyed($("moves"), moves.slice(0, shown), {
    key: m => m.sequence,
    make: m => {
      const button = el("button", {type: "button"}, el("bdi", {}, visible(m.name)));
      button.addEventListener("click", () => open(m.number));
      return el("li", {},
        el("time", {datetime: m.time}, clock(m.time)), " ", button, " ",
        el("span", {class: "badge"}, `${words(m.kind)}, ${m.confidence}`), " ",
        el("span", {title: `${m.from} → ${m.to}`}, `${m.from} → ${short(m.from, m.to)}`));
    },
    update: () => {},
  });
}
