// The page: what is asked of the monitor, and who shows which part of the answer.
import {$, setText} from "./dom.js";
import {say, sayMoves} from "./announce.js";
import {chart} from "./chart.js";
import {makeHead, showOrder} from "./columns.js";
import {closeDetail, makeDetail, openDetail, showDetail} from "./detail.js";
import {showFigures} from "./figures.js";
import {plural} from "./format.js";
import {makeKeys} from "./keys.js";
import {makeList, moreRows, showList} from "./list.js";
import {showMoves} from "./moves.js";
import {poll} from "./poll.js";
import {drawRates} from "./rates.js";

const asked = {q: "", sort: "started", order: "descending", rows: 100, detail: 0};
let opener = null; // the button that has opened the detail
let found = 0; // timer: says what was found once nobody types
const showRates = chart($("rates"), drawRates);

function show(a) {
  setText($("capture"), a.running ? "live" : "The capture has ended. This is its last state.");
  $("capture").classList.toggle("live", a.running);
  showFigures(a);
  showRates(a.rates);
  showMoves(a.moves, open);
  showList(a, asked.detail);
  if (asked.detail) showDetail(a.detail);
  setText($("found"), asked.q ? `${plural(a.found, "connection", "connections")} found` : "");
  sayMoves(a.path_changes, a.moves);
  document.documentElement.dataset.ready = "yes";
}

function failed() {
  setText($("capture"), "The monitor does not answer. This is its last state.");
  $("capture").classList.remove("live");
}

function open(number, button = null) {
  opener = button;
  asked.detail = number;
  openDetail(button ? button.textContent : "");
  ask();
}

function close() {
  if (!asked.detail) return;
  const row = $("rows").querySelector(`[data-number="${asked.detail}"] button`);
  asked.detail = 0;
  closeDetail();
  (opener?.isConnected ? opener : row ?? $("search")).focus();
  ask();
}

makeHead($("head"), (key, order) => {
  Object.assign(asked, {sort: key, order});
  showOrder($("head"), key, order);
  ask();
});
showOrder($("head"), asked.sort, asked.order);
makeList(open);
makeDetail(close);
makeKeys(close);
$("search").addEventListener("input", () => {
  asked.q = $("search").value.trim();
  asked.rows = 100;
  ask();
  clearTimeout(found);
  found = setTimeout(() => say($("found").textContent || "all connections"), 700);
});
$("more-button").addEventListener("click", () => {
  asked.rows = moreRows(asked.rows);
  ask();
});
const ask = poll(() => "data.json?" + new URLSearchParams(asked), show, failed);
