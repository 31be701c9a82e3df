package portmap

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// igd is a UPnP gateway on loopback.
type igd struct {
	*testing.T
	http    *httptest.Server
	control string // URL in its description
	service string
	faults  []int // of AddPortMapping, in turn

	mu      sync.Mutex
	actions []string
}

func newIGD(t *testing.T) *igd {
	g := &igd{T: t, control: "/control", service: services[1]}
	mux := http.NewServeMux()
	mux.HandleFunc("/desc.xml", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device><deviceList><device><serviceList>
<service><serviceType>%s</serviceType><controlURL>%s</controlURL></service></serviceList></device></deviceList></device></root>`, g.service, g.control)
	})
	mux.HandleFunc("/huge.xml", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<root xmlns="urn:schemas-upnp-org:device-1-0"><device><friendlyName>`)
		for i := 0; i < 10*maxXML; i += 1 << 10 {
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<10))
		}
		fmt.Fprintf(w, `</friendlyName><serviceList><service><serviceType>%s</serviceType><controlURL>/control</controlURL></service></serviceList></device></root>`, g.service)
	})
	mux.HandleFunc("/away.xml", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/desc.xml", http.StatusFound) })
	mux.HandleFunc("/control", g.act)
	g.http = httptest.NewServer(mux)
	t.Cleanup(g.http.Close)
	return g
}

// act performs an action.
func (g *igd) act(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	_, action, _ := strings.Cut(strings.Trim(r.Header.Get("SOAPACTION"), `"`), "#")
	g.actions = append(g.actions, action+" "+arg(body, "NewExternalPort")+" "+arg(body, "NewLeaseDuration"))
	inner := ""
	switch {
	case action == "GetExternalIPAddress":
		inner = "<NewExternalIPAddress>203.0.113.1</NewExternalIPAddress>"
	case action == "AddPortMapping" && len(g.faults) > 0:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError><errorCode>%d</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, g.faults[0])
		g.faults = g.faults[1:]
		return
	}
	fmt.Fprintf(w, `<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><u:%sResponse xmlns:u="%s">%s</u:%sResponse></s:Body></s:Envelope>`, action, g.service, inner, action)
}

func arg(body []byte, name string) string {
	_, rest, _ := strings.Cut(string(body), "<"+name+">")
	value, _, _ := strings.Cut(rest, "<")
	return value
}

// discovery answers searches with these locations.
func (g *igd) discovery(locations ...string) upnp {
	port := serve(g.T, func(b []byte) (answers [][]byte) {
		if !strings.HasPrefix(string(b), "M-SEARCH * HTTP/1.1\r\n") {
			return nil
		}
		for _, l := range locations {
			answers = append(answers, []byte("HTTP/1.1 200 OK\r\nLOCATION: "+l+"\r\n\r\n"))
		}
		return append(answers, []byte("garbage"))
	})
	return upnp{netip.AddrPortFrom(loopback, port)}
}

func TestUPnP(t *testing.T) {
	for _, service := range services {
		g := newIGD(t)
		g.service = service
		// Locations elsewhere do not count.
		u := g.discovery("http://192.0.2.1/desc.xml", "https://127.0.0.1/desc.xml", g.http.URL+"/desc.xml")
		m, err := u.ask(ctxOf(t), testRequest())
		if want := (Mapping{netip.MustParseAddrPort("203.0.113.1:1000"), time.Hour, UPnP}); err != nil || m != want {
			t.Errorf("%s: got %v, %v, want %v", service, m, err, want)
		}
		r := testRequest()
		r.external, r.lifetime = m.External, 0
		if _, err := u.ask(ctxOf(t), r); err != nil {
			t.Error(err)
		}
		if got := strings.Join(g.actions, ", "); got != "GetExternalIPAddress  , AddPortMapping 1000 3600, DeletePortMapping 1000 " {
			t.Errorf("got actions %q", got)
		}
	}
}

func TestUPnPFaults(t *testing.T) {
	g := newIGD(t)
	g.faults = []int{errConflict, errOnlyPermanent}
	u := g.discovery(g.http.URL + "/desc.xml")
	m, err := u.ask(ctxOf(t), testRequest())
	if err != nil || m.External.Port() == 1000 || m.Lifetime != time.Hour {
		t.Errorf("got %v, %v", m, err)
	}
	if got, want := g.actions[len(g.actions)-1], fmt.Sprintf("AddPortMapping %d 0", m.External.Port()); got != want {
		t.Errorf("the last action: got %q, want %q", got, want)
	}
	g.faults = []int{606}
	if m, err := u.ask(ctxOf(t), testRequest()); err == nil {
		t.Errorf("got %v of a gateway that refuses", m)
	}
}

func TestUPnPHostile(t *testing.T) {
	for name, test := range map[string]struct{ path, control string }{
		"control elsewhere": {"/desc.xml", "http://localhost:PORT/control"},
		"oversized":         {"/huge.xml", "/control"},
		"redirect":          {"/away.xml", "/control"},
		"missing":           {"/none.xml", "/control"},
	} {
		g := newIGD(t)
		_, port, _ := strings.Cut(g.http.Listener.Addr().String(), ":")
		g.control = strings.ReplaceAll(test.control, "PORT", port)
		if m, err := g.discovery(g.http.URL+test.path).ask(ctxOf(t), testRequest()); err == nil {
			t.Errorf("%s: got %v", name, m)
		}
		if len(g.actions) != 0 {
			t.Errorf("%s: got actions %q", name, g.actions)
		}
	}
}

// Only the answer of the gateway counts, and not that of another host on the network.
func TestStrangerIsNotHeard(t *testing.T) {
	searches := make(chan struct{}, 100)
	port := serve(t, func([]byte) [][]byte {
		searches <- struct{}{}
		return [][]byte{[]byte("HTTP/1.1 200 OK\r\nLOCATION: http://127.0.0.9/desc.xml\r\n\r\n")}
	})
	r := testRequest()
	r.gateway = netip.MustParseAddr("127.0.0.9")
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error)
	go func() {
		_, err := upnp{netip.AddrPortFrom(loopback, port)}.find(ctx, r)
		answered <- err
	}()
	for range 3 { // the third is sent because the answers to the first two do not count
		select {
		case <-searches:
		case err := <-answered:
			t.Fatalf("the answer of another host is accepted: %v", err)
		}
	}
	cancel()
	if err := <-answered; err == nil {
		t.Error("the answer of another host is accepted")
	}
}
