package schema

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func TestSchema(t *testing.T) {
	type inner struct {
		City string `json:"city"`
	}
	type node struct {
		Next *node `json:"next"`
	}
	for _, c := range []struct {
		typ  reflect.Type
		want string
	}{
		{reflect.TypeFor[string](), `{"type":"string"}`},
		{reflect.TypeFor[int](), `{"type":"integer"}`},
		{reflect.TypeFor[uint8](), `{"type":"integer","minimum":0,"maximum":255}`},
		{reflect.TypeFor[float64](), `{"type":"number"}`},
		{reflect.TypeFor[[]byte](), `{"type":["string","null"],"contentEncoding":"base64"}`},
		{reflect.TypeFor[[]bool](), `{"type":["array","null"],"items":{"type":"boolean"}}`},
		{reflect.TypeFor[map[string]int](), `{"type":["object","null"],"additionalProperties":{"type":"integer"}}`},
		{reflect.TypeFor[*string](), `{"type":["string","null"]}`},
		{reflect.TypeFor[time.Time](), `{"type":"string","format":"date-time"}`},
		{reflect.TypeFor[any](), `{}`},
		{reflect.TypeFor[json.RawMessage](), `{}`},
		{reflect.TypeFor[node](), `{"type":"object","properties":{"next":{}},"additionalProperties":false}`},
		{reflect.TypeFor[struct {
			ID     string `json:"id" doc:"the id"`
			Note   string `json:"note,omitempty"`
			Home   inner  `json:"home"`
			Hidden string `json:"-"`
			Plain  bool
		}](), `{"type":"object","properties":{
			"id":{"type":"string","description":"the id"},
			"note":{"type":"string"},
			"home":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false},
			"Plain":{"type":"boolean"}
		},"required":["id","home","Plain"],"additionalProperties":false}`},
		{reflect.TypeFor[struct {
			N int64    `json:"n,string"`
			F *float64 `json:"f,omitempty,string"`
		}](), `{"type":"object","properties":{
			"n":{"type":"string"},"f":{"type":["string","null"]}
		},"required":["n"],"additionalProperties":false}`},
	} {
		var got, want any
		if err := json.Unmarshal(Of(c.typ, Reads), &got); err != nil {
			t.Fatalf("%v: %v", c.typ, err)
		}
		if err := json.Unmarshal([]byte(c.want), &want); err != nil {
			t.Fatalf("%v: %v", c.typ, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got %s, want %s", c.typ, Of(c.typ, Reads), c.want)
		}
	}
}
