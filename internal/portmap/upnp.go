package portmap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/soap"
)

const (
	maxXML      = 64 << 10
	description = "quicway"
	// Errors of AddPortMapping.
	errConflict      = 718
	errOnlyPermanent = 725
	anyPortAttempts  = 3
)

// services are the services of IGD v1 and v2 that map ports. They have the same actions.
var services = [...]string{
	"urn:schemas-upnp-org:service:WANIPConnection:2",
	"urn:schemas-upnp-org:service:WANIPConnection:1",
	"urn:schemas-upnp-org:service:WANPPPConnection:1",
}

type upnp struct{ search netip.AddrPort }

func (u upnp) ask(ctx context.Context, r request) (Mapping, error) {
	location, err := u.find(ctx, r)
	if err != nil {
		return Mapping{}, err
	}
	c, err := connect(ctx, location, r.gateway)
	if err != nil {
		return Mapping{}, err
	}
	if r.lifetime == 0 {
		return Mapping{}, c.delete(ctx, r.external.Port())
	}
	addr, err := c.address(ctx)
	if err != nil {
		return Mapping{}, err
	}
	port, lifetime, err := c.add(ctx, r)
	return Mapping{External: netip.AddrPortFrom(addr, port), Lifetime: lifetime, Protocol: UPnP}, err
}

// connection is a service of the gateway.
type connection struct {
	*soap.SOAPClient
	service string
}

// connect reads the gateway's description and chooses a service. The service must be at the
// gateway as well, so that the description cannot direct this host to others.
func connect(ctx context.Context, location *url.URL, gateway netip.Addr) (*connection, error) {
	client := http.Client{
		Transport:     limited{&http.Transport{DisableKeepAlives: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("read UPnP description: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read UPnP description: %w", err)
	}
	defer resp.Body.Close()
	decoder := xml.NewDecoder(resp.Body)
	decoder.DefaultSpace = goupnp.DeviceXMLNamespace
	var root goupnp.RootDevice
	if err := decoder.Decode(&root); err != nil {
		return nil, fmt.Errorf("read UPnP description: %w", err)
	}
	root.SetURLBase(location)
	for _, service := range services {
		for _, s := range root.Device.FindService(service) {
			if s.ControlURL.Ok && hostIs(&s.ControlURL.URL, gateway) {
				c := soap.NewSOAPClient(s.ControlURL.URL)
				c.HTTPClient = client
				return &connection{c, service}, nil
			}
		}
	}
	return nil, errors.New("the UPnP gateway has no service that maps ports")
}

func (c *connection) address(ctx context.Context) (netip.Addr, error) {
	var out struct{ NewExternalIPAddress string }
	if err := c.PerformActionCtx(ctx, c.service, "GetExternalIPAddress", nil, &out); err != nil {
		return netip.Addr{}, fmt.Errorf("ask for the external address: %w", err)
	}
	return netip.ParseAddr(out.NewExternalIPAddress)
}

// add maps the external port that is to be renewed, or else the number of the internal port,
// or, if another host uses that, a random port.
func (c *connection) add(ctx context.Context, r request) (port uint16, lifetime time.Duration, err error) {
	port, lifetime = r.external.Port(), r.lifetime
	if port == 0 {
		port = r.port
	}
	for range anyPortAttempts {
		err = c.addPort(ctx, r, port, lifetime)
		var fault *soap.SOAPFaultError
		if !errors.As(err, &fault) {
			break
		}
		switch fault.Detail.UPnPError.Errorcode {
		case errConflict:
			port = uint16(1024 + rand.IntN(1<<16-1024))
		case errOnlyPermanent:
			lifetime = 0 // permanent, but it is renewed, and Close deletes it
		default:
			return 0, 0, err
		}
	}
	return port, r.lifetime, err
}

func (c *connection) addPort(ctx context.Context, r request, port uint16, lifetime time.Duration) error {
	in := struct {
		NewRemoteHost, NewExternalPort, NewProtocol, NewInternalPort, NewInternalClient, NewEnabled, NewPortMappingDescription, NewLeaseDuration string
	}{"", strconv.Itoa(int(port)), "UDP", strconv.Itoa(int(r.port)), r.local.String(), "1", description, strconv.Itoa(int(lifetime / time.Second))}
	if err := c.PerformActionCtx(ctx, c.service, "AddPortMapping", &in, nil); err != nil {
		return fmt.Errorf("map port: %w", err)
	}
	return nil
}

func (c *connection) delete(ctx context.Context, port uint16) error {
	in := struct{ NewRemoteHost, NewExternalPort, NewProtocol string }{"", strconv.Itoa(int(port)), "UDP"}
	if err := c.PerformActionCtx(ctx, c.service, "DeletePortMapping", &in, nil); err != nil {
		return fmt.Errorf("delete mapping: %w", err)
	}
	return nil
}

func hostIs(u *url.URL, addr netip.Addr) bool {
	host, err := netip.ParseAddr(u.Hostname())
	return err == nil && host == addr && u.Scheme == "http"
}

// limited bounds the size of an answer.
type limited struct{ *http.Transport }

func (l limited) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.Transport.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxXML), resp.Body}
	}
	return resp, err
}
