package monitor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"

	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/xdp"
)

func Example() {
	source, err := monitor.OpenFile("../examples/monitor/testdata/sample.pcap")
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
	for c := range m.Connections() {
		fmt.Println(c.ServerName, c.Version, c.Confidence)
		for _, change := range c.PathChanges {
			fmt.Println("  ", change.Kind, change.From, "to", change.To)
		}
	}
	// Output:
	// moving.example v1 proven
	//    rebinding 192.0.2.1:50000 to 192.0.2.1:50123
	// <b>markup</b>.example v1 proven
}

func ExampleMonitor_Events() {
	source, err := monitor.OpenFile("../examples/monitor/testdata/sample.pcap")
	if err != nil {
		log.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		log.Fatal(err)
	}
	events := m.Events(context.Background()) // before Run, to get all of them
	go func() {
		if err := m.Run(context.Background()); err != nil {
			log.Fatal(err)
		}
	}()
	for e := range events {
		if e.Kind == monitor.EventPathChanged {
			fmt.Println(e.Connection.ServerName, e.Change.Kind, e.Change.Confidence)
		}
	}
	// Output: moving.example rebinding high
}

func ExampleNew() {
	run := func(ctx context.Context) error {
		source, err := monitor.OpenFile("capture.pcapng") // or monitor.Capture("eth0")
		if err != nil {
			return err
		}
		m, err := monitor.New(source, nil)
		if err != nil {
			return err
		}
		show := func(c monitor.Connection) {
			fmt.Println(c.Paths[0].Client, c.Paths[0].Server, c.Version, c.Handshake.ServerSide, c.PathChanges)
		}
		events, ended := m.Events(ctx), make(chan error, 1) // before Run, to get all of them
		go func() { ended <- m.Run(ctx) }()
		for e := range events {
			if e.Kind == monitor.EventClosed { // it was idle, or was evicted
				show(e.Connection)
			}
		}
		for c := range m.Connections() { // those that are still kept at the end
			show(c)
		}
		return <-ended
	}
	if err := run(context.Background()); errors.Is(err, fs.ErrNotExist) {
		fmt.Println("no such file")
	}
	// Output: no such file
}

// A filter selects connections by host, port, network and name.
func ExampleParseFilter() {
	filter, err := monitor.ParseFilter("net 192.0.2.0/24 and port 443 and not name *markup*")
	if err != nil {
		log.Fatal(err)
	}
	source, err := monitor.OpenFile("../examples/monitor/testdata/sample.pcap")
	if err != nil {
		log.Fatal(err)
	}
	m, err := monitor.New(source, &monitor.Config{Filter: filter})
	if err != nil {
		log.Fatal(err)
	}
	if err := m.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
	for c := range m.Connections() {
		fmt.Println(c.ServerName)
	}
	_, err = monitor.ParseFilter("port 443 and adress 192.0.2.1")
	fmt.Println(err)
	// Output:
	// moving.example
	// monitor: invalid filter: character 14: "adress" is not host, port, net, name, not or a parenthesis
}

// An XDP program counts the packets on the interfaces of a host or a router.
func ExampleKernel() {
	watch := func(ctx context.Context, interfaces []string) error {
		program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.MonitorStage}})
		if err != nil {
			return err
		}
		defer program.Close()
		for _, iface := range interfaces { // one on a host, several on a router
			if _, err := program.Attach(iface, xdp.Auto); err != nil {
				return err
			}
		}
		source, err := monitor.Kernel(program)
		if err != nil {
			return err
		}
		m, err := monitor.New(source, nil)
		if err != nil {
			return err
		}
		return m.Run(ctx)
	}
	if err := watch(context.Background(), []string{"eth0"}); err != nil { // needs root
		log.Fatal(err)
	}
}

// The state says which connections are over, if that shows.
func ExampleEnding() {
	show := func(c monitor.Connection) {
		if c.State == monitor.StateEnded {
			fmt.Println(c.State, c.Ended)
			return
		}
		fmt.Println(c.State)
	}
	show(monitor.Connection{State: monitor.StateOpen})
	show(monitor.Connection{State: monitor.StateEnded, Ended: &monitor.Ending{By: "server", Code: 2, Error: "0x2 CONNECTION_REFUSED"}})
	show(monitor.Connection{State: monitor.StateEnded, Ended: &monitor.Ending{Cause: monitor.CauseIdle}})
	// Output:
	// open
	// ended closed in the handshake by the server: 0x2 CONNECTION_REFUSED
	// ended idle
}
