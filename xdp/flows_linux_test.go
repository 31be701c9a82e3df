package xdp

import "testing"

func TestLoadsFlows(t *testing.T) {
	p, err := Load(&Config{Sessions: 1, Flows: 100})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer p.Close()
	if p.egress.missing != nil {
		t.Fatal(p.egress.missing)
	}
}
