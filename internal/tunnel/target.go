package tunnel

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// Pattern is the pattern, for a [http.ServeMux], of the request for a tunnel. It is the default
// URI template of RFC 9298 §2.
const Pattern = "GET /.well-known/masque/udp/{target_host}/{target_port}/{$}"

// Path returns the path of the request for a tunnel to a target, in its escaped form.
func Path(host string, port uint16) string {
	host = strings.ReplaceAll(url.PathEscape(host), ":", "%3A") // RFC 9298 §2
	return "/.well-known/masque/udp/" + host + "/" + strconv.Itoa(int(port)) + "/"
}

// protocol is the upgrade token (RFC 9298 §3.2).
const protocol = "connect-udp"

// SetUpgrade sets the header fields of the request for a tunnel, and of the answer that grants it
// (RFC 9298 §3.2 and §3.3).
func SetUpgrade(h http.Header) {
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", protocol)
	h.Set("Capsule-Protocol", "?1")
}

// IsUpgrade says whether a header asks for a tunnel, or grants one.
func IsUpgrade(h http.Header) bool {
	return hasToken(h, "Connection", "upgrade") && hasToken(h, "Upgrade", protocol)
}

// hasToken says whether a list of tokens has one, in upper or lower case.
func hasToken(h http.Header, field, token string) bool {
	for _, line := range h.Values(field) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
