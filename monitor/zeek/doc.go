// Package zeek writes connections as the quic.log of Zeek
// (https://docs.zeek.org/en/master/reference/logs/quic.html), as text with tabs or as JSON.
//
// The fields are those of Zeek's QUIC::Info. The uid is that of [monitor.Connection], and the
// endpoints are those of its first path. A connection is written when it ends.
//
// Some lines differ from those that Zeek would write. Zeek ends a line at a Retry and at a
// CONNECTION_CLOSE and begins another one; here a connection has one line. Zeek has no line for a
// connection of which it has seen only short headers; here its version is unset. A version that
// is not in Zeek's list has the name "unknown-" and its number, as there.
package zeek
