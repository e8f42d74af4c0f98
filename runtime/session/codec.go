package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// errInvalidRecord says that a record was not written by codec.
var errInvalidRecord = errors.New("the record is not a session")

// record is a session as it is stored, in JSON.
type record struct {
	Deadline time.Time                  `json:"deadline"`
	Values   map[string]json.RawMessage `json:"values"`
}

// codec is the Codec of scs. Records are JSON, so that they can be inspected. A value
// is always a json.RawMessage.
type codec struct{}

// Encode fails with an *contract.Error if the values are larger than a session may be.
func (codec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	r := record{deadline, make(map[string]json.RawMessage, len(values))}
	for name, value := range values {
		r.Values[name] = value.(json.RawMessage)
	}
	if err := contract.CheckSession(r.Values); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// Decode fails with errInvalidRecord.
func (codec) Decode(b []byte) (time.Time, map[string]any, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return time.Time{}, nil, fmt.Errorf("%w: %w", errInvalidRecord, err)
	}
	values := make(map[string]any, len(r.Values))
	for name, value := range r.Values {
		values[name] = value
	}
	return r.Deadline, values, nil
}
