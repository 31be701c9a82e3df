package p2p

import (
	"context"
	"net"
	"net/http"
)

// peerKey is the key of a context's link or PeerID.
type peerKey struct{}

// PeerFromContext returns the peer of the connection that a context belongs to: the Context of
// a [Conn] or of one of its streams, that of a request of an http3.Server which serves the
// connection, and that of a request of an [http.Server] with [ConnContext]. It returns false
// for other contexts, and if the peer has shown no certificate ([Config.TLS]).
func PeerFromContext(ctx context.Context) (PeerID, bool) {
	var id PeerID
	switch v := ctx.Value(peerKey{}).(type) {
	case PeerID:
		id = v
	case *link:
		if c := v.conn(); c != nil {
			id = c.RemoteID()
		}
	}
	return id, !id.IsZero()
}

// withPeer returns a context by which PeerFromContext finds the peer when there is a
// connection.
func (l *link) withPeer(ctx context.Context) context.Context {
	return context.WithValue(ctx, peerKey{}, l)
}

// ConnContext is for [http.Server.ConnContext], so that [PeerFromContext] knows the peer of a
// request. It finds the peer of any [net.Conn] whose RemoteAddr is a [PeerAddr]: a
// [StreamConn], or a connection over one, such as a [tls.Conn].
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if addr, ok := c.RemoteAddr().(PeerAddr); ok {
		ctx = context.WithValue(ctx, peerKey{}, addr.ID)
	}
	return ctx
}

// PeerHandler returns a handler that gives h each request with the text of the peer's
// [PeerID] as RemoteAddr. It is for an http3.Server, which otherwise names the address of the
// relay. It leaves requests alone whose context has no peer ([PeerFromContext]).
func PeerHandler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer, ok := PeerFromContext(r.Context()); ok {
			r = r.WithContext(r.Context()) // a copy
			r.RemoteAddr = peer.String()
		}
		h.ServeHTTP(w, r)
	})
}
