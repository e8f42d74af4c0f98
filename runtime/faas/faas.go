// Package faas is what functions are written with: how a function is
// registered (OnRequest, OnEvent), what it says of itself (HTTP, Cached, Retry
// …), how it reaches others (Bus, Call), and what its errors mean (NotFound,
// RetryAfter …).
//
// It knows nothing of brokers, HTTP servers or caches. Package contract has what
// those need to run a function; the types of it that function authors use have
// names here, too.
package faas
