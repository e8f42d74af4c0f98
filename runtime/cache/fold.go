package cache

import (
	"errors"
	"strings"
	"unicode"
)

var errAmbiguous = errors.New("members whose names differ in case only")

// fold maps names that encoding/json takes for the same to one: the smallest
// rune of each orbit, as in strings.EqualFold.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
