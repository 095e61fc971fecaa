package reason

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
)

// documented reads the table of docs/protocol.md: by reason, "code final
// RetryInfo".
func documented(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "| reason | code | final? | RetryInfo |")
	if !ok {
		t.Fatal("docs/protocol.md has no table of errors")
	}
	names := regexp.MustCompile("`([A-Z_]+)`")
	rows := map[string]string{}
	for _, line := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(line, "|")
		if len(cells) < 6 {
			break
		}
		for _, m := range names.FindAllStringSubmatch(cells[1], -1) {
			if rows[m[1]] != "" {
				t.Errorf("docs/protocol.md has %s twice", m[1])
			}
			rows[m[1]] = strings.Join([]string{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3]), strings.TrimSpace(cells[4])}, " ")
		}
	}
	return rows
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// codeName is the code as the contract of all gRPC languages spells it.
func codeName(c codes.Code) string { return code.Code_name[int32(c)] }

// TestTableIsDocumented compares the table with the one for people.
func TestTableIsDocumented(t *testing.T) {
	rows := documented(t)
	for _, r := range All() {
		want := fmt.Sprintf("%s %s %s", codeName(r.Code()), yes(r.Final()), yes(r.Retries()))
		if got, ok := rows[r.Name()]; !ok {
			t.Errorf("docs/protocol.md does not have %s: %s", r.Name(), want)
		} else if got != want {
			t.Errorf("docs/protocol.md says of %s %q; the code says %q", r.Name(), got, want)
		}
		delete(rows, r.Name())
	}
	for name := range rows {
		t.Errorf("docs/protocol.md has %s, which the server never says", name)
	}
}

// TestRetryInfoIsAPromise holds what clients rely on: RESOURCE_EXHAUSTED and
// UNAVAILABLE have RetryInfo exactly when waiting cures them.
func TestRetryInfoIsAPromise(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range All() {
		if seen[r.Name()] {
			t.Errorf("%s is in the table twice", r.Name())
		}
		seen[r.Name()] = true
		if r.Code() == codes.ResourceExhausted || r.Code() == codes.Unavailable {
			if r.Final() == r.Retries() {
				t.Errorf("%s: final %v, RetryInfo %v", r.Name(), r.Final(), r.Retries())
			}
		} else if r.Retries() {
			t.Errorf("%s has RetryInfo with code %v", r.Name(), r.Code())
		}
		if r.Code() == codes.Unavailable && r.Final() {
			t.Errorf("%s is UNAVAILABLE for ever", r.Name())
		}
		for _, given := range []time.Duration{-1, 0, 3 * time.Second} {
			var retry *errdetails.RetryInfo
			var info *errdetails.ErrorInfo
			for _, d := range r.Status("m", given).Details() {
				switch d := d.(type) {
				case *errdetails.RetryInfo:
					retry = d
				case *errdetails.ErrorInfo:
					info = d
				}
			}
			if info.GetReason() != r.Name() || info.GetDomain() != Domain {
				t.Errorf("%s: ErrorInfo is %v", r.Name(), info)
			}
			if (retry != nil) != r.Retries() {
				t.Errorf("%s, given %v: RetryInfo is %v", r.Name(), given, retry)
			}
			if given > 0 && retry != nil && retry.GetRetryDelay().AsDuration() != given {
				t.Errorf("%s: told %v instead of %v", r.Name(), retry.GetRetryDelay().AsDuration(), given)
			}
		}
	}
}

func TestCut(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("ü", 600), strings.Repeat("x", 600), "\xff\xfe" + strings.Repeat("語", 300)} {
		c := Cut(s, maxMessage)
		if len(c) > maxMessage || !utf8.ValidString(c) {
			t.Errorf("Cut(%.10q...) has %d bytes: %q", s, len(c), c)
		}
		if len(s) <= maxMessage && c != s {
			t.Errorf("Cut(%q) is %q", s, c)
		}
	}
}
