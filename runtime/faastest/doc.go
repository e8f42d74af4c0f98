// Package faastest helps to test functions: it checks that each file of a package
// registers the function that it is named after. It knows a set of functions, and
// runs none of them: a test calls a function as a Go function, with fakes.
package faastest
