package p2p

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestSignal(t *testing.T) {
	var buf bytes.Buffer
	s := newSignal(&buf)
	frames := []frame{
		hello{version: 1, proof: []byte("proof")}.frame(),
		{kind: frameKeepAlive},
		{kind: 1 << 40, payload: make([]byte, maxFrame)},
	}
	for _, f := range frames {
		if err := s.write(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range frames {
		got, err := s.read()
		if err != nil || got.kind != want.kind || !bytes.Equal(got.payload, want.payload) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	if _, err := s.read(); err != io.EOF {
		t.Errorf("after the last frame: %v, want %v", err, io.EOF)
	}
}

func TestSignalRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		wire string
		want error
	}{
		"cut before its length": {"\x02", io.ErrUnexpectedEOF},
		"cut in its payload":    {"\x02\x05abc", io.ErrUnexpectedEOF},
		"endless":               {"\x02\x80\x10\x00\x00", errSignal},
	} {
		if _, err := newSignal(bytes.NewBufferString(test.wire)).read(); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

func TestParseHello(t *testing.T) {
	for name, test := range map[string]struct {
		frame frame
		want  *hello
	}{
		"plain":             {hello{1, []byte("p")}.frame(), &hello{1, []byte("p")}},
		"newer, with more":  {frame{frameHello, []byte("\x07\x01pmore")}, &hello{7, []byte("p")}},
		"without proof":     {frame{frameHello, []byte("\x01\x00")}, &hello{1, nil}},
		"another frame":     {frame{frameKeepAlive, nil}, nil},
		"empty":             {frame{frameHello, nil}, nil},
		"version 0":         {frame{frameHello, []byte("\x00\x00")}, nil},
		"cut before proof":  {frame{frameHello, []byte("\x01")}, nil},
		"cut within proof":  {frame{frameHello, []byte("\x01\x05ab")}, nil},
		"proof of 2^62 - 1": {frame{frameHello, []byte("\x01\xff\xff\xff\xff\xff\xff\xff\xff")}, nil},
	} {
		got, err := parseHello(test.frame)
		if test.want == nil {
			if !errors.Is(err, errSignal) {
				t.Errorf("%s: %v, want %v", name, err, errSignal)
			}
			continue
		}
		if err != nil || got.version != test.want.version || !bytes.Equal(got.proof, test.want.proof) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, *test.want)
		}
	}
}

// FuzzSignal checks that frames are read as they were written, and that reading ends.
func FuzzSignal(f *testing.F) {
	f.Add(hello{version: 1, proof: make([]byte, 32)}.frame().append(nil))
	f.Add(frame{kind: frameKeepAlive}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSignal(bytes.NewBuffer(b))
		for {
			got, err := s.read()
			if err != nil {
				return
			}
			if len(got.payload) > maxFrame {
				t.Fatalf("frame of %d bytes", len(got.payload))
			}
			if h, err := parseHello(got); err == nil {
				again, err := parseHello(h.frame())
				if err != nil || again.version != h.version || !bytes.Equal(again.proof, h.proof) {
					t.Errorf("%+v became %+v, %v", h, again, err)
				}
			}
			again, err := newSignal(bytes.NewBuffer(got.append(nil))).read()
			if err != nil || again.kind != got.kind || !bytes.Equal(again.payload, got.payload) {
				t.Errorf("%v became %v, %v", got, again, err)
			}
		}
	})
}
