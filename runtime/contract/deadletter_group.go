package contract

import (
	"cmp"
	"regexp"
	"slices"
	"time"
)

// DeadLetterGroup is dead letters of one function that died of the same error.
type DeadLetterGroup struct {
	Function string    `json:"function"`
	Code     Code      `json:"code"`
	Error    string    `json:"error"` // with … for what differs from letter to letter
	Count    int       `json:"count"`
	First    time.Time `json:"first"` // the earliest of their last failures
	Last     time.Time `json:"last"`  // the latest
}

// DeadLetterGroups counts dead letters by function and error. The zero value is
// ready to use.
type DeadLetterGroups struct {
	groups map[deadGroupKey]*DeadLetterGroup
}

type deadGroupKey struct {
	function, err string
	code          Code
}

// Add counts l.
func (g *DeadLetterGroups) Add(l *DeadLetter) {
	key := deadGroupKey{l.Function, errorPattern(l.Error), l.Code}
	group := g.groups[key]
	if group == nil {
		if g.groups == nil {
			g.groups = map[deadGroupKey]*DeadLetterGroup{}
		}
		group = &DeadLetterGroup{Function: l.Function, Code: l.Code, Error: key.err, First: l.Last, Last: l.Last}
		g.groups[key] = group
	}
	group.Count++
	if l.Last.Before(group.First) {
		group.First = l.Last
	}
	if l.Last.After(group.Last) {
		group.Last = l.Last
	}
}

// List returns the groups by function, the largest first.
func (g *DeadLetterGroups) List() []DeadLetterGroup {
	list := make([]DeadLetterGroup, 0, len(g.groups))
	for _, group := range g.groups {
		list = append(list, *group)
	}
	slices.SortFunc(list, func(a, b DeadLetterGroup) int {
		return cmp.Or(cmp.Compare(a.Function, b.Function), cmp.Compare(b.Count, a.Count), cmp.Compare(a.Error, b.Error))
	})
	return list
}

// varying is what in an error is likely to be about one letter alone: what
// stands in quotes, numbers, and ids with a digit in them.
var varying = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\b[0-9A-Za-z-]*[0-9][0-9A-Za-z-]*\b(?:[.:][0-9][0-9A-Za-z]*)*`)

// errorPattern is err without what differs from letter to letter.
func errorPattern(err string) string { return varying.ReplaceAllString(err, "…") }
