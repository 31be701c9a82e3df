package sni

import (
	"encoding/json"
	"reflect"
	"testing"
)

// TestStatsInJSON checks that counters can be read back from JSON, and that unknown names are errors.
func TestStatsInJSON(t *testing.T) {
	want := newServer(t, &Config{}).Stats()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Stats
	if err := json.Unmarshal(text, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := json.Unmarshal([]byte(`{"failed":{"nothing":1}}`), &got); err == nil {
		t.Error("an unknown failure is no error")
	}
	if err := json.Unmarshal([]byte(`{"quic":{"dropped":{"nothing":1}}}`), &got); err == nil {
		t.Error("an unknown drop is no error")
	}
}
