package zeek_test

import (
	"context"
	"log"
	"os"

	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/monitor/zeek"
)

// A file's connections, as Zeek writes them to quic.log if it writes JSON.
func Example() {
	source, err := monitor.OpenFile("../../examples/monitor/testdata/sample.pcap")
	if err != nil {
		log.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := m.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	w := zeek.NewJSONWriter(os.Stdout)
	for c := range m.Connections() {
		if err := w.Connection(&c); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// {"ts":946684800.040000,"uid":"C1xCfeweFhpLL7zcFN","id.orig_h":"192.0.2.1","id.orig_p":50000,"id.resp_h":"198.51.100.2","id.resp_p":443,"version":"1","client_initial_dcid":"e28b7d9f24ccdf5b613688fd70d929","client_scid":"e64cf620","server_scid":"e6b65090a5d5d959","server_name":"moving.example","client_protocol":"quicway-monitor-test","history":"IISiishoIHOOOOOooooOooO"}
	// {"ts":946684800.000000,"uid":"C1o3eRLA2ROGkxuv8B","id.orig_h":"192.0.2.1","id.orig_p":50000,"id.resp_h":"198.51.100.2","id.resp_p":443,"version":"1","client_initial_dcid":"e932dfdb9dda22a7dd48b5e98ecb880bb6452367","client_scid":"31200d5d","server_scid":"465a1e4a431deee4","server_name":"<b>markup</b>.example","client_protocol":"quicway-monitor-test","history":"IISiishoIHOOOoooOO"}
}
