package monitor

// listen has the connections that have fallen silent up to a time counted as such. They follow each
// other from the cursor to the end of the table's ring, so that each is looked at once when it falls
// silent. The ring is in the order of entry.seen, which may be touchAfter older than a connection's last
// packet: by that time a connection may be counted late.
func (x *index) listen(now int64) {
	t := &x.connections
	for e := t.cursor.prev; e != &t.ring && now-e.value.last >= silentAfter; e = e.prev {
		t.cursor = e
		e.value.quiet = true
		x.census.update(e.value)
	}
}

// wake notes that a connection is not silent any more. Its entry is then touched.
func (x *index) wake(c *connection) {
	if c.quiet {
		c.quiet = false
		x.census.update(c)
	}
}
