// Numbers and times as people read them.

const count = new Intl.NumberFormat("en");

export const number = n => count.format(Math.round(n));

export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

/** bytes formats a number of bytes with a binary unit. */
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i++; }
  return `${n.toFixed(i ? 1 : 0)} ${units[i]}`;
}

/** milliseconds formats a round trip with three digits. */
export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

/** duration formats a time span in milliseconds. */
export function duration(ms) {
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  if (ms < 120e3) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 7200e3) return `${(ms / 60e3).toFixed(1)} min`;
  return `${(ms / 3600e3).toFixed(1)} h`;
}

/** clock formats a time of the day. */
export const clock = at => new Date(at).toLocaleTimeString("en-GB");

/** words replaces the underscores of a name in JSON. */
export const words = name => name.replaceAll("_", " ");
