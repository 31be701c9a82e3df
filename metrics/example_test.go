package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quicway/quicway/metrics"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
)

// Example serves the metrics of an endpoint, a relay and a quota on one page.
func Example() {
	server, controller, endpoint, err := parts()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer controller.Close()
	defer server.Close()
	defer endpoint.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.BuildInfo(), metrics.P2P(endpoint), metrics.Relay(server), metrics.Quota(controller))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	page := httptest.NewServer(http.DefaultServeMux)
	defer page.Close()
	resp, err := http.Get(page.URL + "/metrics")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "quicway_relay_sessions") || strings.HasPrefix(line, "quicway_p2p_connections{") {
			fmt.Print(line)
		}
	}
	// Output:
	// quicway_p2p_connections{path="direct"} 0
	// quicway_p2p_connections{path="lan"} 0
	// quicway_p2p_connections{path="relay"} 0
	// quicway_p2p_connections{path="tunnel"} 0
	// quicway_relay_sessions 0
	// quicway_relay_sessions_limit 65536
}

// parts makes what has metrics.
func parts() (*relay.Server, *quota.Controller, *p2p.Endpoint, error) {
	server, err := relay.Listen(context.Background(), "udp", "127.0.0.1:0", nil)
	if err != nil {
		return nil, nil, nil, err
	}
	controller, err := quota.New(nil)
	if err != nil {
		return nil, nil, nil, errors.Join(err, server.Close())
	}
	endpoint, err := p2p.NewEndpoint(nil)
	return server, controller, endpoint, err
}
