// Package faastest helps to test functions.
package faastest
