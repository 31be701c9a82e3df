package eve_test

import (
	"context"
	"log"
	"os"

	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/monitor/eve"
)

// A record for each ClientHello in a file, as in Suricata's eve.json.
func Example() {
	source, err := monitor.OpenFile("../../examples/monitor/testdata/sample.pcap")
	if err != nil {
		log.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		log.Fatal(err)
	}
	w := eve.NewWriter(os.Stdout)
	events := m.Events(context.Background()) // before Run, to get all of them
	go func() {
		if err := m.Run(context.Background()); err != nil {
			log.Fatal(err)
		}
	}()
	for e := range events {
		if err := w.Event(&e); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// {"timestamp":"2000-01-01T00:00:00.000000+0000","flow_id":2058003366121143,"event_type":"quic","src_ip":"192.0.2.1","src_port":50000,"dest_ip":"198.51.100.2","dest_port":443,"proto":"UDP","ip_v":4,"community_id":"1:M1HR6XxFOGq/e1kDkAP3oWNGYBY=","quic":{"version":"1","sni":"<b>markup</b>.example","ja4":"q13d0315qt_55b375c5d22e_c935d23fa9a4"}}
	// {"timestamp":"2000-01-01T00:00:00.040000+0000","flow_id":2010103498871277,"event_type":"quic","src_ip":"192.0.2.1","src_port":50000,"dest_ip":"198.51.100.2","dest_port":443,"proto":"UDP","ip_v":4,"community_id":"1:M1HR6XxFOGq/e1kDkAP3oWNGYBY=","quic":{"version":"1","sni":"moving.example","ja4":"q13d0315qt_55b375c5d22e_c935d23fa9a4"}}
}
