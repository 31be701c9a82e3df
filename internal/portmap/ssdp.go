package portmap

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

var multicast = netip.MustParseAddrPort("239.255.255.250:1900")

// searches are the search targets of IGD v1 and v2 devices.
var searches = [...]string{
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
}

// find searches for the gateway's description (UPnP Device Architecture §1.3) until ctx is
// done. It ignores answers that do not come from the gateway, or point to another host.
func (u upnp) find(ctx context.Context, r request) (*url.URL, error) {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.local, 0)))
	if err != nil {
		return nil, fmt.Errorf("search for UPnP: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	b := make([]byte, 2048)
	for resend := firstResend; ; resend *= 2 {
		for _, target := range searches {
			search := "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: " + target + "\r\n\r\n"
			if _, err := conn.WriteToUDPAddrPort([]byte(search), u.search); err != nil {
				return nil, fmt.Errorf("search for UPnP: %w", err)
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(resend)); err != nil {
			return nil, fmt.Errorf("search for UPnP: %w", err)
		}
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("search for UPnP: %w", err)
			}
			if from.Addr().Unmap() != r.gateway {
				continue
			}
			if location, ok := parseLocation(b[:n]); ok && hostIs(location, r.gateway) {
				return location, nil
			}
		}
	}
}

// parseLocation returns the URL in the answer to a search.
func parseLocation(b []byte) (*url.URL, bool) {
	resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return nil, false
	}
	defer resp.Body.Close()
	location, err := resp.Location()
	return location, err == nil && resp.StatusCode == http.StatusOK
}
