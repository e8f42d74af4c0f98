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
	Error    string    `json:"error"` // with … in place of what differs between the letters
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

// varying matches the parts of an error that are likely to differ between
// letters: quoted text, numbers, and ids that contain a digit.
var varying = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|\b[0-9A-Za-z-]*[0-9][0-9A-Za-z-]*\b(?:[.:][0-9][0-9A-Za-z]*)*`)

// errorPattern returns err with the varying parts replaced.
func errorPattern(err string) string { return varying.ReplaceAllString(err, "…") }
