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

// TestTableKeepsAll checks that a table that grows bucket by bucket has what a map has.
func TestTableKeepsAll(t *testing.T) {
	var table table[int, int]
	table.init(5000, nil)
	want := map[int]int{}
	for i := range 4000 {
		table.put(i, i, int64(i))
		want[i] = i
		if i%3 == 0 {
			table.remove(i / 2)
			delete(want, i/2)
		}
	}
	if table.len() != len(want) {
		t.Errorf("got %d entries, want %d", table.len(), len(want))
	}
	for i := range 4000 {
		e := table.peek(i)
		if _, ok := want[i]; ok != (e != nil) || ok && e.value != i {
			t.Fatalf("key %d: got %v, want it: %v", i, e, ok)
		}
	}
}

// TestFewKeepsNothing checks that a list does not keep its first element after it was removed.
func TestFewKeepsNothing(t *testing.T) {
	var list []*int
	var first [1]*int
	for range 2 {
		list = appendFew(list, &first, new(int))
	}
	if first[0] != nil || len(list) != 2 || list[0] == nil {
		t.Errorf("got %v, and a list of %d", first, len(list))
	}
}
