package contract

import "strings"

// Match reports whether a routing key matches a topic pattern of AMQP 0-9-1:
// words separated by dots, where "*" matches one word and "#" zero or more.
func Match(pattern, key string) bool {
	if !strings.ContainsAny(pattern, "*#") {
		return pattern == key
	}
	return matchWords(strings.Split(pattern, "."), strings.Split(key, "."))
}

// matchWords lets each "#" match as few words as possible, and one more whenever
// the rest does not match. It needs to backtrack only to the last "#", therefore
// it takes at most len(pattern) × len(key) steps.
func matchWords(pattern, key []string) bool {
	p, k := 0, 0
	hash, taken := -1, 0 // the last "#", and the number of words of key before the rest
	for k < len(key) {
		switch {
		case p < len(pattern) && pattern[p] == "#":
			hash, taken = p, k
			p++
		case p < len(pattern) && (pattern[p] == "*" || pattern[p] == key[k]):
			p++
			k++
		case hash >= 0:
			taken++
			p, k = hash+1, taken
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == "#" {
		p++
	}
	return p == len(pattern)
}
