// What screen readers say without being asked: not more than one text every few seconds.
import {$, setText} from "./dom.js";
import {plural, words} from "./format.js";

const pause = 5000;
let next = "", waiting = false;

/** say makes screen readers say a text. A later text replaces one that still waits. */
export function say(text) {
  next = text;
  if (!waiting) speak();
}

function speak() {
  setText($("live"), next);
  next = "";
  waiting = true;
  setTimeout(() => {
    waiting = false;
    if (next) speak();
  }, pause);
}

let heard = -1, unsaid = 0; // path changes that were said or seen, and those that wait

/** sayMoves says the path changes that are new since the last call. */
export function sayMoves(total, moves) {
  if (heard < 0) heard = total; // those before the page was opened
  if (total === heard) return;
  unsaid = (waiting ? unsaid : 0) + total - heard;
  heard = total;
  const m = moves[0];
  const latest = `${m.name}: ${words(m.kind)} to ${m.to}`;
  say(unsaid === 1 ? latest : `${plural(unsaid, "path change", "path changes")}, the latest: ${latest}`);
}
