// What is known of a connection, as names and values.
import {bytes, clock, duration, milliseconds, plural} from "./format.js";

const known = value => value !== undefined && value !== "" && value !== null;

/** facts returns pairs of a name and a text. */
export function facts(c) {
  const span = Date.parse(c.last) - Date.parse(c.first);
  const changed = (c.version_names ?? []).length > 1 ? ` (${c.version_names.join(" → ")})` : "";
  const extras = [
    c.zero_rtt && plural(c.zero_rtt, "0-RTT packet", "0-RTT packets"),
    c.retries && plural(c.retries, "Retry", "Retries"),
    c.version_negotiations && plural(c.version_negotiations, "Version Negotiation", "Version Negotiations"),
    c.ech && "ECH", c.post_quantum && "post-quantum key share",
  ].filter(Boolean);
  return [
    ["State", c.state === "ended" ? `ended: ${c.reason}` : c.state],
    ["Said", c.ended?.phrase],
    ["Seen", `${clock(c.first)} to ${clock(c.last)}, ${duration(span)}`],
    ["Version", c.version_name + changed],
    ["Sure", `${c.confidence}: ${c.evidence}`],
    ["ALPN", (c.alpn ?? []).join(", ") + (c.alpn_omitted ? ` and ${c.alpn_omitted} more` : "")],
    ["JA4", c.ja4],
    ["UID", c.uid],
    ["Community", c.community_id],
    ["History", c.history],
    ["TLS", [c.tls_version, c.cipher, c.group].filter(known).join(", ")],
    ["Also", extras.join(", ")],
    ["RTT", c.rtt?.samples ? `${milliseconds(c.rtt.min_ms)} at least, median ${milliseconds(c.rtt.median_ms)}, jitter ${milliseconds(c.rtt.jitter_ms)}` : ""],
    ["From client", `${plural(c.from_client.packets, "datagram", "datagrams")}, ${bytes(c.from_client.bytes)}`],
    ["From server", `${plural(c.from_server.packets, "datagram", "datagrams")}, ${bytes(c.from_server.bytes)}`],
  ].filter(([, value]) => known(value));
}

/** connectionIDs returns pairs of a side and one of its connection IDs. */
export function connectionIDs(c) {
  return [
    ...(c.odcids ?? []).map(id => ["original", id]),
    ...(c.client_ids ?? []).map(id => ["client", id]),
    ...(c.server_ids ?? []).map(id => ["server", id]),
  ];
}
