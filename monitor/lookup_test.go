package monitor

import "testing"

// TestFlowBeforeItsHosts checks that a flow that was no connection becomes one once its hosts have a
// connection, though it was looked up before.
func TestFlowBeforeItsHosts(t *testing.T) {
	tracker := newTracker(t, nil)
	const other = "192.0.2.1:50123" // another port of the client's
	flow := addShorts(establishedConn(t)[:1], 1, shortHeaders{other, serverAddr, newID, 300}, shortHeaders{serverAddr, other, cliNo, 300})
	track(tracker, flow[1:])
	if n := len(connections(tracker)); n != 0 {
		t.Fatalf("got %d connections, want none yet", n)
	}
	e := tracker.index.potential.ring.next
	if !tracker.index.knownAlone(&e.value) {
		t.Fatal("the flow's hosts are not known to have no connection")
	}
	track(tracker, establishedConn(t))
	if tracker.index.knownAlone(&e.value) || tracker.index.alone(e) {
		t.Error("the flow's hosts have a connection, and it is not seen")
	}
}
