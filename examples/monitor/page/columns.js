// The columns of the list: their heads, which sort it, and their cells.
import {el, setAttribute, setText, visible} from "./dom.js";
import {bytes, clock, milliseconds, plural} from "./format.js";

/**
 * columns are the columns after the name, which is the head of its row. first is the order
 * that the first click on the head gives.
 */
export const columns = [
  {key: "name", title: "Name", first: "ascending"},
  {key: "state", title: "State", first: "ascending", fill: fillState},
  {key: "client", title: "Client", first: "ascending", fill: (td, c) => setText(td, c.client)},
  {key: "server", title: "Server", first: "ascending", fill: (td, c) => setText(td, c.server)},
  {key: "version", title: "Version", first: "ascending", fill: fillVersion},
  {key: "rtt", title: "RTT", first: "descending", numeric: true, fill: fillRTT},
  {key: "traffic", title: "Traffic", first: "descending", numeric: true, fill: fillTraffic},
  {key: "moves", title: "Moves", first: "descending", numeric: true, fill: (td, c) => setText(td, c.moves || "–")},
  {key: "started", title: "Started", first: "descending", numeric: true, fill: (td, c) => setText(td, clock(c.first))},
];

/** makeHead makes the heads. sort(key, order) is called when one is chosen. */
export function makeHead(tr, sort) {
  for (const column of columns) {
    const button = el("button", {type: "button"}, column.title, el("span", {class: "arrow", "aria-hidden": "true"}));
    const th = el("th", {scope: "col", class: `column-${column.key}${column.numeric ? " numeric" : ""}`, "data-key": column.key}, button);
    button.addEventListener("click", () => {
      const now = th.getAttribute("aria-sort");
      sort(column.key, now === null ? column.first : now === "ascending" ? "descending" : "ascending");
    });
    tr.append(th);
  }
}

/** showOrder shows by which column the list is sorted. */
export function showOrder(tr, key, order) {
  for (const th of tr.children) setAttribute(th, "aria-sort", th.dataset.key === key ? order : null);
}

/** makeCells makes the cells of a row. */
export function makeCells(tr) {
  for (const column of columns) {
    if (!column.fill) continue;
    const td = el("td", {class: `column-${column.key}${column.numeric ? " numeric" : ""}`});
    tr.append(td);
  }
}

/** fillCells shows a connection in its cells. */
export function fillCells(tr, c) {
  let td = tr.firstElementChild; // the name
  for (const column of columns) if (column.fill) column.fill(td = td.nextElementSibling, c);
}

function fillState(td, c) {
  if (!td.firstChild) td.append(el("span", {class: "dot", "aria-hidden": "true"}), el("span"));
  setText(td.lastChild, c.state === "ended" ? `ended: ${c.why}` : c.state);
  setAttribute(td, "title", c.why);
}

function fillVersion(td, c) {
  setText(td, c.version);
  setAttribute(td, "title", c.alpn.length ? `ALPN ${c.alpn.map(visible).join(", ")}` : null);
}

function fillRTT(td, c) {
  setText(td, c.rtt_by ? milliseconds(c.rtt_ms) : "–");
  setAttribute(td, "title", c.rtt_by ? `by the ${c.rtt_by === "spin" ? "spin bit" : "handshake"}` : "not measured");
}

function fillTraffic(td, c) {
  setText(td, bytes(c.bytes));
  setAttribute(td, "title", plural(c.packets, "datagram", "datagrams"));
}
