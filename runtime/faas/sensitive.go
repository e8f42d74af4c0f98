package faas

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/faas/internal/schema"
)

// A field of a message or a reply tagged `sensitive:"true"` holds what must
// not lie around. In the schema its property, or whatever it is inside of that
// the schema does not spell out, has the keyword "x-sensitive"; the descriptor
// is Sensitive. Nothing of such a function is cached, its errors are logged
// without what the message's sensitive fields hold, and who shows a message
// shows what Redact leaves of it.

// isSensitive reports whether a message or the reply has sensitive fields.
func isSensitive(d *contract.Descriptor) bool {
	return contract.HasSensitive(d.Input) || contract.HasSensitive(d.Output) ||
		slices.ContainsFunc(d.Reactions, func(r contract.Reaction) bool { return contract.HasSensitive(r.Input) })
}

// checkExposure says which sensitive field the route would put into a URL,
// where every proxy logs it (RFC 9110, section 17.9).
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
