package wire

import "strings"

// TopicCancel is the topic of the broadcast that a call is canceled. Its body is
// the reply queue of the call, a space, and its tag.
const TopicCancel = "cancel"

// CancelBody returns the body of a cancel broadcast.
func CancelBody(replyTo, tag string) string { return replyTo + " " + tag }

// ParseCancel parses the body of a cancel broadcast.
func ParseCancel(body []byte) (replyTo, tag string, ok bool) {
	s := string(body)
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}
