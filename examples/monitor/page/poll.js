// Asking the monitor for its state: one request at a time, as often as the monitor says, and
// not while nobody looks.

const patience = 10000, longest = 8000;

/**
 * poll asks path() and calls show(answer), or failed(), until the page is closed. The
 * function that it returns asks at once.
 */
export function poll(path, show, failed) {
  let timer = 0, request = null, wait = 1000;
  async function ask() {
    clearTimeout(timer);
    request?.abort();
    const mine = request = new AbortController();
    const limit = setTimeout(() => mine.abort(), patience);
    try {
      const response = await fetch(path(), {signal: mine.signal, cache: "no-store"});
      if (!response.ok) throw new Error(response.statusText);
      const answer = await response.json();
      if (mine !== request) return;
      wait = answer.next_ms;
      show(answer);
    } catch (error) {
      if (mine !== request) return; // a later request has replaced this one
      wait = Math.min(wait * 2, longest);
      failed(error);
    } finally {
      clearTimeout(limit);
    }
    if (!document.hidden) timer = setTimeout(ask, wait);
  }
  document.addEventListener("visibilitychange", () => document.hidden || ask());
  ask();
  return ask;
}
