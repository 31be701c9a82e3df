package relay

import (
	"crypto/tls"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/quota"
)

// transport is a QUIC transport, be it under a quota or not.
type transport interface {
	listen(*tls.Config, *quic.Config) (http3.QUICListener, error)
	Close() error
}

// plainTransport is a transport without a quota.
type plainTransport struct{ *quic.Transport }

func (t plainTransport) listen(tlsConf *tls.Config, conf *quic.Config) (http3.QUICListener, error) {
	return t.Listen(tlsConf, conf)
}

// quotaTransport is a transport under a quota.
type quotaTransport struct{ *quota.Transport }

func (t quotaTransport) listen(tlsConf *tls.Config, conf *quic.Config) (http3.QUICListener, error) {
	return t.Listen(tlsConf, conf)
}
