package archtest

import (
	"os"
	"regexp"
	"testing"
)

// TestRulesHaveOneNumber: two rules of docs/protocol.md that share a number
// cannot be cited, and a citation names a rule that exists.
func TestRulesHaveOneNumber(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^- \*\*(R\d+)\*\*`).FindAllStringSubmatch(string(page), -1) {
		if rules[m[1]] {
			t.Errorf("two rules are %s", m[1])
		}
		rules[m[1]] = true
	}
	if len(rules) < 30 {
		t.Fatalf("only %d rules were found: has the page another form?", len(rules))
	}
	for _, m := range regexp.MustCompile(`\((R\d+)\b`).FindAllStringSubmatch(string(page), -1) {
		if !rules[m[1]] {
			t.Errorf("%s is cited, and there is no such rule", m[1])
		}
	}
}
