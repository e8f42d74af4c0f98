package faas

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

// A field of a message or a reply with the tag `sensitive:"true"` holds a secret.
// Its property in the schema, or the closest one that encloses it, has the keyword
// "x-sensitive", and the descriptor is Sensitive. Results of such a function are not
// cached, its errors are logged without the values of the sensitive fields, and
// messages are shown only after contract.Redact.

// isSensitive reports whether a message or the reply has sensitive fields.
func isSensitive(d *contract.Descriptor) bool {
	return contract.HasSensitive(d.Input) || contract.HasSensitive(d.Output) ||
		slices.ContainsFunc(d.Reactions, func(r contract.Reaction) bool { return contract.HasSensitive(r.Input) })
}

// checkExposure reports sensitive fields that the route would take from the URL,
// which proxies log (RFC 9110, section 17.9).
func checkExposure(d *contract.Descriptor) error {
	params := paramsOf(d.Route)
	for name, property := range schema.Properties(d.Input) {
		switch {
		case !contract.HasSensitive(property) || schema.HeaderOf(d.Input, name) != "":
		case slices.Contains(params, name):
			return fmt.Errorf("route %q: the field %q is sensitive and would be in the path, which is logged everywhere: take it from the body or a header field", d.Route.Path, name)
		case !hasBody(d.Route.Method):
			return fmt.Errorf("route %q: the field %q is sensitive and a %s request has no body to carry it: use POST, or take it from a header field", d.Route.Path, name, d.Route.Method)
		}
	}
	return nil
}

func hasBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}
