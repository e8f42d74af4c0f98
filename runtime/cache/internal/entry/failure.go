package entry

import (
	"encoding/json"

	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// keptFailure is the part of a failure that callers may see.
type keptFailure struct {
	Code   contract.Code         `json:"code"`
	Detail string                `json:"detail,omitempty"`
	Fields []contract.FieldError `json:"fields,omitempty"`
}

// EncodeFailure returns the body of an entry for a failure: its code, its detail
// and its fields as JSON.
func EncodeFailure(e *contract.Error) []byte {
	body, _ := json.Marshal(keptFailure{e.Code, e.Detail, e.Fields}) // strings can always be written
	return body
}

// DecodeFailure returns the failure in body, nil if there is none. The function
// did not run for the caller that gets it.
func DecodeFailure(body []byte) *contract.Error {
	var kept keptFailure
	if ok := json.Unmarshal(body, &kept) == nil; !ok || kept.Code == "" {
		return nil
	}
	return &contract.Error{Code: kept.Code, Detail: kept.Detail, Fields: kept.Fields, Executed: contract.ExecutedNo}
}
