package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// Types that say themselves what they are in JSON: both ways, or one way only.
type (
	grade   int // a text both ways
	hint    int // a text in a reply, with its pointer's method
	shade   int // a text in a reply
	wish    struct{ N int }
	report  struct{ N int } // an array in a reply
	octet   byte            // not a byte to encoding/json
	flag    bool            //nolint:unused // embedded below
	Stamped struct {
		At  int    `json:"at"`
		Who string `json:"who"`
	}
	deepest struct {
		ID   string `json:"id"`
		Deep int    `json:"deep"`
	}
	Mixed struct {
		deepest
		*Stamped
		ID    []string `json:"identity"` // has the Go name, but not the JSON name, of a deeper one
		Who   bool     `json:"who"`      // hides Stamped's
		Minus int      `json:"-,"`       //nolint:staticcheck // it is called "-", and not left out
		Gone  string   `json:"-"`
		flag           //nolint:unused // JSON sees an embedded type that is not exported only if it is a struct
	}
	Kept struct {
		deepest `json:"kept"`
		Stamped `json:"stamped"`
	}
	Tree struct {
		Name string           `json:"name"`
		Sub  []Tree           `json:"sub"`
		By   map[string]*Tree `json:"by,omitempty"`
	}
)

func (g grade) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "grade %d", int(g)), nil }
func (g *grade) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "grade %d", (*int)(g))
	return err
}
func (s shade) MarshalText() ([]byte, error)  { return fmt.Appendf(nil, "shade %d", int(s)), nil }
func (h *hint) MarshalText() ([]byte, error)  { return fmt.Appendf(nil, "hint %d", int(*h)), nil }
func (r report) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "[%d]", r.N), nil }
func (o octet) MarshalText() ([]byte, error)  { return strconv.AppendInt(nil, int64(o), 10), nil }
func (w *wish) UnmarshalJSON(b []byte) error  { return json.Unmarshal(b, &w.N) }

// exact are types of which the schema says all, contents ones that take not
// every string or name, and oneWay those that look different as a reply.
var (
	exact    = types[string, bool, int, int8, uint16, uint64, float64, any, json.RawMessage, Mixed, Kept, []bool, [2]int, [3]byte, time.Duration]()
	contents = types[time.Time, json.Number, []byte, netip.Addr, net.IP, grade, map[int]string, map[netip.Addr]int, Stamped, *time.Time, Tree, int, []string, map[string]any, struct{}]()
	oneWay   = types[shade, hint, *hint, []hint, report, *report, wish, []octet, map[string]hint, map[shade]int, fmt.Stringer, error, string, bool, []int]()
)

func types[A, B, C, D, E, F, G, H, I, J, K, L, M, N, O any]() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[A](), reflect.TypeFor[B](), reflect.TypeFor[C](), reflect.TypeFor[D](), reflect.TypeFor[E](),
		reflect.TypeFor[F](), reflect.TypeFor[G](), reflect.TypeFor[H](), reflect.TypeFor[I](), reflect.TypeFor[J](),
		reflect.TypeFor[K](), reflect.TypeFor[L](), reflect.TypeFor[M](), reflect.TypeFor[N](), reflect.TypeFor[O](),
	}
}

// typeOf makes a type of some of leaves.
func typeOf(r *rand.Rand, leaves []reflect.Type, depth int) reflect.Type {
	of := func() reflect.Type { return typeOf(r, leaves, depth-1) }
	if depth == 0 {
		return leaves[r.IntN(len(leaves))]
	}
	switch r.IntN(8) {
	case 0:
		return reflect.SliceOf(of())
	case 1:
		return reflect.MapOf(reflect.TypeFor[string](), of())
	case 2:
		return reflect.PointerTo(of())
	case 3:
		return reflect.ArrayOf(r.IntN(3), of())
	case 4:
		return of()
	}
	var fields []reflect.StructField
	for i := range 1 + r.IntN(4) {
		options := []string{"", ",omitempty", ",omitzero"}[r.IntN(3)]
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("F%d", i), Type: of(), Tag: reflect.StructTag(fmt.Sprintf(`json:"f%d%s"`, i, options)),
		})
	}
	return reflect.StructOf(fields)
}

// fill puts something into v, nil and zero among it.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if r.IntN(4) == 0 {
		return
	}
	switch v.Type() {
	case reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte(`{"raw":[1,null]}`))
		return
	case numberType:
		v.SetString("12.5")
		return
	case timeType:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1e9), 0)))
		return
	case reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(256))})))
		return
	case reflect.TypeFor[net.IP]():
		v.Set(reflect.ValueOf(net.IPv4(10, 0, 0, 1)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString([]string{"a", "null", "ä\n\"", "<&>"}[r.IntN(4)])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64())
	case reflect.Float32, reflect.Float64:
		v.SetFloat(r.NormFloat64())
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf([]any{"a", 1.5, []int{1}, map[string]any{"x": nil}}[r.IntN(4)]))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem(), depth)
	case reflect.Slice:
		if depth == 0 {
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), r.IntN(3), 3))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i), depth-1)
		}
	case reflect.Map:
		if depth == 0 {
			return
		}
		v.Set(reflect.MakeMap(v.Type()))
		for range r.IntN(3) {
			key, item := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(r, key, depth)
			fill(r, item, depth-1)
			v.SetMapIndex(key, item)
		}
	case reflect.Struct:
		for _, part := range v.Fields() {
			if part.CanSet() {
				fill(r, part, depth)
			} else if part.Kind() == reflect.Struct { // embedded, and not exported: its fields are
				for _, inner := range part.Fields() {
					fill(r, inner, depth)
				}
			}
		}
	}
}

// validatorOf returns what a client would check bodies with.
func validatorOf(t *testing.T, schema json.RawMessage) func(body []byte) error {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(schema, &s); err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatalf("%s: %v", schema, err)
	}
	return func(body []byte) error {
		var v any
		if err := json.Unmarshal(body, &v); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return resolved.Validate(v)
	}
}

// What encoding/json writes of a reply is as the function's schema says, and
// so is what it writes of a message, which the function takes.
func TestSchemaFitsWhatIsWritten(t *testing.T) {
	for name, leaves := range map[string][]reflect.Type{"exact": exact, "contents": contents, "one way": oneWay} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(80) {
				r := rand.New(rand.NewPCG(seed, 0))
				typ := typeOf(r, leaves, r.IntN(3))
				reply := validatorOf(t, Of(typ, Writes))
				in := NewDecoder(typ, Strict)
				message := validatorOf(t, in.Schema)
				for range 10 {
					v := reflect.New(typ)
					fill(r, v.Elem(), 3)
					body, err := json.Marshal(v.Elem().Interface())
					if err != nil {
						t.Fatalf("%v: %v", typ, err)
					}
					if err := reply(body); err != nil {
						t.Fatalf("%v is written as %s, but %v: %s", typ, body, err, Of(typ, Writes))
					}
					if name == "one way" {
						continue
					}
					if err := message(body); err != nil {
						t.Fatalf("%v: a caller sends %s, but %v: %s", typ, body, err, in.Schema)
					}
					if err := in.Decode(body, reflect.New(typ).Interface()); err != nil {
						t.Fatalf("%v: %s is refused: %v, %v", typ, body, err, contract.AsError(err).Fields)
					}
				}
			}
		})
	}
}

// change puts something else into a place of v.
func change(r *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		switch choice := r.IntN(8); {
		case choice == 0:
			v["unknown"] = 1
			return v
		case choice == 1 && len(names) > 0:
			delete(v, names[r.IntN(len(names))])
			return v
		case choice < 7 && len(names) > 0:
			name := names[r.IntN(len(names))]
			v[name] = change(r, v[name])
			return v
		}
	case []any:
		if i := r.IntN(len(v) + 2); i < len(v) {
			v[i] = change(r, v[i])
			return v
		}
	}
	return []any{nil, true, 1, -1, 1.5, 300, "x", []any{}, []any{nil}, map[string]any{}}[r.IntN(10)]
}

// withoutNull takes out the members that are null: of those that are optional a
// message takes null for not there.
func withoutNull(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			if v[name] = withoutNull(member); member == nil {
				delete(v, name)
			}
		}
	case []any:
		for i := range v {
			v[i] = withoutNull(v[i])
		}
	}
	return v
}

// A function takes what its schema allows, and nothing else.
func TestSchemaFitsWhatIsTaken(t *testing.T) {
	encode := func(v any) []byte {
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	taken, refused := 0, 0
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 1))
		typ := typeOf(r, exact, r.IntN(3))
		in := NewDecoder(typ, Strict)
		valid := validatorOf(t, in.Schema)
		for range 20 {
			whole := reflect.New(typ)
			fill(r, whole.Elem(), 3)
			var v any
			if err := json.Unmarshal(encode(whole.Interface()), &v); err != nil {
				t.Fatal(err)
			}
			v = change(r, v)
			body := encode(v)
			err := in.Decode(body, reflect.New(typ).Interface())
			wrong := valid(body)
			switch {
			case err == nil && wrong != nil && valid(encode(withoutNull(v))) != nil:
				t.Fatalf("%v: %s is taken, though %v: %s", typ, body, wrong, in.Schema)
			case err != nil && wrong == nil:
				t.Fatalf("%v: %s is refused: %v, %v; its schema is %s", typ, body, err, contract.AsError(err).Fields, in.Schema)
			case err == nil:
				taken++
			default:
				refused++
			}
		}
	}
	if taken < 200 || refused < 200 {
		t.Errorf("%d bodies were taken and %d refused: not much of a test", taken, refused)
	}
}
