// The keyboard: one row of the list can be reached by Tab, and arrows lead to the others.
import {$, setAttribute} from "./dom.js";

/** reach makes the button of a row the one that Tab reaches. */
export function reach(button) {
  for (const other of $("rows").querySelectorAll('button[tabindex="0"]')) {
    if (other !== button) setAttribute(other, "tabindex", -1);
  }
  if (button) setAttribute(button, "tabindex", 0);
}

const page = 10;

/** move moves the focus between rows. */
export function move(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const all = [...$("rows").children], at = all.indexOf(event.target.closest("tr")), last = all.length - 1;
  const to = {
    ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  all[Math.min(Math.max(to, 0), last)].querySelector("button").focus();
}

/** moveFocusFrom moves the focus to a neighbour of a row that is about to be removed. */
export function moveFocusFrom(tr) {
  if (!tr.contains(document.activeElement)) return;
  const to = tr.nextElementSibling ?? tr.previousElementSibling;
  (to?.querySelector("button") ?? $("search")).focus();
}

/** makeKeys prepares the keys of the whole page. close() closes the detail. */
export function makeKeys(close) {
  document.addEventListener("keydown", event => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "/" && event.target !== $("search")) {
      event.preventDefault();
      $("search").focus();
    } else if (event.key === "Escape" && !(event.target === $("search") && $("search").value)) {
      close();
    }
  });
}
