// Places for labels that do not overprint each other.

/**
 * spread returns a place for each of some wanted places, which are in ascending order: as
 * near to it as possible, at least gap apart, and between low and high. If there is no room
 * in one row, the labels take turns in several.
 */
export function spread(wanted, gap, low, high) {
  const fit = Math.max(1, Math.floor((high - low) / gap) + 1);
  const rows = Math.ceil(wanted.length / fit);
  const places = new Array(wanted.length);
  for (let row = 0; row < rows; row++) {
    const mine = wanted.map((_, i) => i).filter(i => i % rows === row);
    let free = low;
    for (const i of mine) {
      places[i] = {x: Math.max(wanted[i], free), row};
      free = places[i].x + gap;
    }
    let limit = high;
    for (const i of mine.reverse()) {
      places[i].x = Math.min(places[i].x, limit);
      limit = places[i].x - gap;
    }
  }
  return places;
}
