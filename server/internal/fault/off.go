//go:build !faults

package fault

// Point is where the process may be killed.
func Point(string) {}

// Broken reports whether a rule is to be broken.
func Broken(string) bool { return false }
