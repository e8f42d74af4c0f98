package caching

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rabbet-fn/rabbet/runtime/contract"
	"github.com/rabbet-fn/rabbet/runtime/ingress/internal/header"
)

// Directives reads Cache-Control, or Pragma if there is no Cache-Control (RFC
// 9111, sections 5.2.1 and 5.4). It ignores unknown directives.
func Directives(h http.Header) (want contract.CacheDirectives) {
	values := h["Cache-Control"]
	if len(values) == 0 {
		want.NoCache = len(h["Pragma"]) > 0 && strings.EqualFold(h["Pragma"][0], "no-cache")
		return want
	}
	for _, value := range values {
		for value != "" {
			var directive string
			directive, value = header.CutItem(value)
			name, argument, _ := strings.Cut(directive, "=")
			add(&want, name, strings.Trim(argument, `"`))
		}
	}
	return want
}

// add adds one directive. If two differ, the stricter one counts (RFC 9111,
// section 4.2.1).
func add(want *contract.CacheDirectives, name, argument string) {
	switch strings.ToLower(name) {
	case "no-store":
		want.NoStore = true
	case "no-cache":
		want.NoCache = true
	case "only-if-cached":
		want.OnlyIfCached = true
	case "max-age":
		age, ok := deltaSeconds(argument)
		switch {
		case !ok || age == 0: // a malformed age counts as stale
			want.NoCache = true
		case want.MaxAge == 0 || age < want.MaxAge:
			want.MaxAge = age
		}
	case "min-fresh":
		fresh, ok := deltaSeconds(argument)
		want.NoCache = want.NoCache || !ok
		want.MinFresh = max(want.MinFresh, fresh)
	case "max-stale":
		stale, ok := deltaSeconds(argument)
		if argument == "" {
			stale, ok = math.MaxInt64, true
		}
		if ok && (want.MaxStale == 0 || stale < want.MaxStale) {
			want.MaxStale = stale
		}
	}
}

// deltaSeconds reads seconds. More than 2^31 count as 2^31 (RFC 9111, section
// 1.2.2).
func deltaSeconds(text string) (time.Duration, bool) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		n = 1 << 31
	}
	return time.Duration(n) * time.Second, true
}
