// The list of connections: a row for each, which stays the same element while the
// connection is listed.
import {$, el, setAttribute, setHidden, setText, visible} from "./dom.js";
import {fillCells, makeCells} from "./columns.js";
import {keyed} from "./keyed.js";
import {number} from "./format.js";
import {move, moveFocusFrom, reach} from "./keys.js";

const step = 100, most = 500; // rows

/** makeList prepares the list. open(number) is called when a connection is chosen. */
export function makeList(open) {
  $("rows").addEventListener("click", event => {
    const tr = event.target.closest("tr");
    if (!tr || marks(tr) && !event.target.closest("button")) return;
    open(Number(tr.dataset.number), tr.querySelector("button"));
  });
  $("rows").addEventListener("keydown", move);
  $("rows").addEventListener("focusin", event => reach(event.target));
}

// marks says whether a text in a row is marked, rather than the row chosen.
function marks(tr) {
  const selection = document.getSelection();
  return !selection.isCollapsed && tr.contains(selection.anchorNode);
}

/** showList shows the rows of an answer. selected is the number of the one in the detail. */
export function showList(a, selected) {
  keyed($("rows"), a.rows, {
    key: c => c.number,
    make: c => {
      const button = el("button", {type: "button", tabindex: -1, "aria-controls": "detail"}, el("bdi"));
      const tr = el("tr", {"data-number": c.number}, el("th", {scope: "row", class: "column-name"}, button));
      makeCells(tr);
      return tr;
    },
    update: (tr, c) => update(tr, c, c.number === selected),
    removing: moveFocusFrom,
  });
  if (!$("rows").querySelector('button[tabindex="0"]')) reach($("rows").querySelector("button"));
  setHidden($("none"), a.rows.length > 0);
  setText($("none"), a.total ? "No connection matches the search." : "No QUIC connection has been seen yet.");
  showMore(a);
}

function update(tr, c, selected) {
  const button = tr.querySelector("button");
  setText(button.firstChild, visible(c.name));
  setAttribute(button, "aria-expanded", selected);
  const fading = c.left_ms > 0;
  if (fading && !tr.classList.contains("fading")) tr.style.setProperty("--left", `${c.left_ms}ms`);
  setAttribute(tr, "class", `state-${c.state}${fading ? " fading" : ""}${selected ? " selected" : ""}`);
  fillCells(tr, c);
}

/** showMore says how many connections are not in the list, and whether it can be longer. */
function showMore(a) {
  const more = a.found - a.rows.length;
  setHidden($("more"), more <= 0);
  setHidden($("more-button"), a.rows.length >= most);
  setText($("more-text"), `and ${number(more)} more${a.rows.length >= most ? ": search for fewer" : ""}`);
}

/** moreRows returns the next number of rows. */
export const moreRows = rows => Math.min(rows + step, most);
