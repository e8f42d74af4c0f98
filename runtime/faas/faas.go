// Package faas is for authors of functions. A function is registered in a Set with
// OnRequest or OnEvent; options such as HTTP, Cached and Retry describe it. It
// publishes events and calls other functions with a Bus. Its errors, such as
// NotFound and RetryAfter, say what happens next.
//
// The package does not know brokers, HTTP servers or caches: they run functions
// through package contract. Types of that package that authors need have an alias
// here.
package faas
