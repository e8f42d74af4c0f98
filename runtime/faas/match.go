package faas

import "strings"

// Match reports whether a routing key fits a topic pattern as AMQP 0-9-1
// defines it: words between dots, "*" is one word, "#" any number of them.
func Match(pattern, key string) bool {
	return matchWords(strings.Split(pattern, "."), strings.Split(key, "."))
}

func matchWords(pattern, key []string) bool {
	for len(pattern) > 0 {
		if pattern[0] == "#" {
			for i := range len(key) + 1 {
				if matchWords(pattern[1:], key[i:]) {
					return true
				}
			}
			return false
		}
		if len(key) == 0 || pattern[0] != "*" && pattern[0] != key[0] {
			return false
		}
		pattern, key = pattern[1:], key[1:]
	}
	return len(key) == 0
}
