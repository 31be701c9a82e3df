package monitor

import "slices"

// sourceTable leads from clients and servers to the connections between them.
type sourceTable struct {
	table[sourceKey, sourceConns]
}

// sourceKey is a client and a server. Each connection is found by four of them:
// any client and the server's endpoint; the client's address and the server's
// endpoint; the client's endpoint and any server; and both addresses.
type sourceKey struct {
	client endpoint // port 0: any port; zero: any client
	server endpoint // port 0: any port; zero: any server
}

// anyPort returns an address with the port 0.
func anyPort(e endpoint) endpoint { return endpoint{IP: e.IP} }

// sourceConns are the connections between a client and a server, the latest last.
type sourceConns struct {
	list  []*connection
	first [1]*connection // the array of list while there is only one
	more  bool           // there have been more than are kept
}

// add adds a connection. The earliest one makes room for it.
func (s *sourceTable) add(key sourceKey, c *connection, now int64) {
	e := s.get(key, now)
	if e == nil {
		e = s.put(key, sourceConns{}, now)
	}
	conns := &e.value
	if slices.Contains(conns.list, c) {
		return
	}
	if len(conns.list) >= maxSourceConn {
		conns.list = slices.Delete(conns.list, 0, 1)
		conns.more = true
	}
	conns.list = appendFew(conns.list, &conns.first, c)
}

// forget removes a connection.
func (s *sourceTable) forget(key sourceKey, c *connection) {
	e := s.peek(key)
	if e == nil {
		return
	}
	if i := slices.Index(e.value.list, c); i >= 0 {
		e.value.list = slices.Delete(e.value.list, i, i+1)
	}
	if len(e.value.list) == 0 {
		s.remove(key)
	}
}

// hostsHaveConnection reports whether two addresses have a connection, whatever
// its ports.
func (s *sourceTable) hostsHaveConnection(client, server endpoint) bool {
	return s.peek(sourceKey{anyPort(client), anyPort(server)}) != nil
}
