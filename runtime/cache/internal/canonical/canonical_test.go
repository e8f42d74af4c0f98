package canonical

import (
	"fmt"
	"strings"
	"testing"
)

func read(body string) (Object, bool) {
	var in Object
	ok := in.Read([]byte(body))
	return in, ok
}

func TestSpellings(t *testing.T) {
	for _, same := range [][]string{
		{`{"id":"42","n":1}`, ` { "n" : 1 , "id" : "\u0034\u0032" } `, "{\n\"id\":\"42\",\"n\":1}\n"},
		{`{}`, ``, ` { } `},
		{`{"a":[1,{"b":2,"c":null}],"z":"<"}`, `{"z":"\u003c","a":[1, {"c":null,"b":2}]}`},
	} {
		want, ok := read(same[0])
		if !ok {
			t.Fatalf("%s: refused", same[0])
		}
		for _, s := range same {
			if got, ok := read(s); !ok || string(got.Text) != string(want.Text) {
				t.Errorf("%q: got another form than %q", s, same[0])
			}
		}
	}
	for _, different := range [][2]string{
		{`{"n":1}`, `{"n":1.0}`}, {`{"n":1}`, `{"n":"1"}`}, {`{"n":"a"}`, `{"n":"A"}`}, {`{"n":10000000000000000001}`, `{"n":10000000000000000002}`},
		{`{"a":"b,c"}`, `{"a":"b","c":""}`}, {`{"a":[1,2]}`, `{"a":[2,1]}`},
	} {
		a, okA := read(different[0])
		b, okB := read(different[1])
		if !okA || !okB || string(a.Text) == string(b.Text) {
			t.Errorf("%s and %s: got the same form", different[0], different[1])
		}
	}
}

// An algorithm of quadratic time is only for small inputs.
func TestSpellingsOfHostileInputs(t *testing.T) {
	var wide strings.Builder
	for i := range 5_000 {
		fmt.Fprintf(&wide, `,"k%04d":0`, i)
	}
	body := "{" + wide.String()[1:] + "}"
	if new(Object).scan([]byte(body)) {
		t.Error("each of 5,000 members was compared with all the others")
	}
	if got, ok := read(body); !ok || string(got.Text) != body || len(got.members) != 5_000 {
		t.Errorf("got %d members, %v, want all 5,000 in their order", len(got.members), ok)
	}
	for depth, want := range map[int]bool{maxDepth: true, maxDepth + 1: false} {
		if _, ok := read(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)); ok != want {
			t.Errorf("%d objects in each other: cached %v, want %v", depth, ok, want)
		}
	}
}

// scan must agree with the decoder on everything that it accepts.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{`{}`, `{"id":"42"}`, `{"a":1,"b":true}`, `{"a":"<"}`, `{"a":-0}`, `{"a":01}`, `{"a":"x"`, `{"a":}`, `{"a":1,}`, `{,}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		quick := new(Object)
		if !quick.scan(body) {
			return
		}
		slow, ok := read(" " + string(body)) // scan refuses the space
		if !ok || string(slow.Text) != string(body) {
			t.Errorf("%q is taken as it stands, want it refused or as %v", body, slow)
		}
	})
}
