package monitor

import "testing"

// TestTable checks that no lookup finds an entry that was removed, has expired or was evicted, also if
// it was the one asked for last.
func TestTable(t *testing.T) {
	for name, drop := range map[string]func(t *table[string, int]){
		"removed": func(t *table[string, int]) { t.remove("a") },
		"expired": func(t *table[string, int]) { t.expire(2) },
		"evicted": func(t *table[string, int]) { t.put("b", 2, 3) },
	} {
		var table table[string, int]
		table.init(1, nil)
		table.put("a", 1, 1)
		if e := table.get("a", 1); e == nil || e != table.peek("a") {
			t.Fatalf("%s: the entry is not there before", name)
		}
		drop(&table)
		if table.get("a", 1) != nil || table.peek("a") != nil {
			t.Errorf("%s: the entry is there afterwards", name)
		}
		if e := table.put("a", 4, 4); table.get("a", 4) != e || e.value != 4 {
			t.Errorf("%s: a later entry of the key is not found", name)
		}
	}
}
