package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// ErrShards is returned by [Listen] if the system cannot distribute the packets of one port
// over several sockets.
var ErrShards = errors.New("this system cannot distribute packets over several sockets (SO_REUSEPORT): use one shard")

// Listen opens as many sockets as shards says at one address. The kernel distributes the flows
// over them. Listen opens all sockets, or none. Network is "udp", "udp4" or "udp6", and
// address is as in [net.ListenPacket]. With port 0 all sockets get the same port. cfg may be
// nil.
func Listen(ctx context.Context, network, address string, shards int, cfg *Config) ([]*Socket, error) {
	if shards > 1 && !CanShard {
		return nil, ErrShards
	}
	var conf net.ListenConfig
	if shards > 1 {
		if err := unused(ctx, network, address); err != nil {
			return nil, err
		}
		conf.Control = reusePort
	}
	var sockets []*Socket
	for range shards {
		socket, err := listenOne(ctx, &conf, network, address, cfg)
		if err != nil {
			for _, s := range sockets {
				err = errors.Join(err, s.Close())
			}
			return nil, err
		}
		sockets = append(sockets, socket)
		address = socket.conn.LocalAddr().String()
	}
	return sockets, nil
}

// unused returns an error if an address is in use. Without this check, another process of the
// same user that also uses SO_REUSEPORT would get some of the flows.
func unused(ctx context.Context, network, address string) error {
	var conf net.ListenConfig
	conn, err := conf.ListenPacket(ctx, network, address)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	return conn.Close()
}

func listenOne(ctx context.Context, conf *net.ListenConfig, network, address string, cfg *Config) (*Socket, error) {
	conn, err := conf.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	socket, err := New(conn, cfg)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return socket, nil
}
