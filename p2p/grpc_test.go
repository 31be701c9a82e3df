package p2p

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// talk is a method that sends back what it receives.
var talk = grpc.StreamDesc{StreamName: "Talk", ClientStreams: true, ServerStreams: true}

// serveGRPC serves talk at a host's listener, and returns what ends that.
func (f *fleet) serveGRPC(h *host, client PeerID) (end func()) {
	desc := &grpc.ServiceDesc{ServiceName: "Talker", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{talk}}
	desc.Streams[0].Handler = func(_ any, s grpc.ServerStream) error {
		p, _ := peer.FromContext(s.Context())
		if addr, ok := p.Addr.(PeerAddr); !ok || addr.ID != client {
			return fmt.Errorf("the peer is %v", p)
		}
		for {
			var m wrapperspb.StringValue
			if err := s.RecvMsg(&m); err != nil {
				return nil
			}
			if err := s.SendMsg(&m); err != nil {
				return err
			}
		}
	}
	server := grpc.NewServer()
	server.RegisterService(desc, nil)
	served := make(chan error, 1)
	go func() { served <- server.Serve(h.Listener()) }()
	return func() {
		server.Stop()
		if err := <-served; err != nil {
			f.Errorf("gRPC: %v", err)
		}
	}
}

// askGRPC sends messages of one call.
func (f *fleet) askGRPC(from, to *host) func(string) (string, error) {
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		return from.DialContext(ctx, "tcp", address)
	}
	client, err := grpc.NewClient("passthrough:///"+to.ID().String(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = client.Close() })
	stream, err := client.NewStream(f.Context(), &talk, "/Talker/Talk")
	if err != nil {
		f.Fatal(err)
	}
	return func(text string) (string, error) {
		if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
			return "", err
		}
		var m wrapperspb.StringValue
		err := stream.RecvMsg(&m)
		return m.Value, err
	}
}
