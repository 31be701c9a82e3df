package main

import "slices"

// tables are all tables, in the order in which they are printed.
var tables = slices.Concat(
	forwardingTables, cidTables, quotaTables, kernelTables, aloneTables, p2pTables, wireTables, monitorTables,
	nameTables, peersTables, splicedTables,
)
