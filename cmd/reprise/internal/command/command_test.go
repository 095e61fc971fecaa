package command

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestHelp holds what every command says about itself, which must include an
// example.
func TestHelp(t *testing.T) {
	for _, name := range []string{
		"", "serve", "chat", "send", "tail", "rooms", "rooms join", "rooms leave", "members",
		"sessions", "sessions end", "check", "backup", "version",
	} {
		t.Run(name, func(t *testing.T) {
			r := newPerson(t, "alice", "").run("", append(strings.Fields(name), "--help")...)
			if r.code != exitOK || r.err != "" {
				t.Fatalf("exit code %d\n%s", r.code, r.err)
			}
			if !strings.Contains(r.out, "Examples:\n  reprise ") && !strings.Contains(r.out, "Example:\n  reprise ") {
				t.Error("there is no example")
			}
			file := filepath.Join("testdata", strings.TrimSpace("help "+name)+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(r.out), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if r.out != string(want) {
				t.Errorf("the help is\n%s\nand not as in %s (go test -update writes it anew)\n%s", r.out, file, want)
			}
		})
	}
}

// TestUsage has command lines that cannot be understood: the exit code tells,
// and the message says what is wrong and where the help is.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		env  map[string]string
		want string
	}{
		{args: "nonsense", want: `there is no command "nonsense"`},
		{args: "chta lobby", want: `did you mean "chat"?`},
		{args: "rooms nonsense", want: `there is no command "nonsense"`},
		{args: "--nonsense", want: "unknown flag: --nonsense\nSee reprise serve --help."},
		{args: "serve nonsense", want: "Usage: reprise serve"},
		{args: "serve --addr :9090", want: "would let other machines in"},
		{args: "serve --addr 0.0.0.0:9090", want: "Use 127.0.0.1:9090; to reach it from another machine, forward the port: ssh -L 9090:127.0.0.1:9090 HOST."},
		{args: "serve --http [::]:8080", want: "--http [::]:8080 would let other machines in"},
		{args: "serve --addr 127.0.0.1:0 --http 127.0.0.1:0 --pprof :6060", want: "--pprof :6060 would let other machines in"},
		{args: "serve --addr nonsense", want: `--addr "nonsense" is not a host and port`},
		{args: "serve --drain-timeout 0s", want: "--drain-timeout must be more than 0"},
		{args: "serve --log-format xml", want: `--log-format "xml" is none of text, json, auto`},
		{args: "serve", env: map[string]string{"REPRISE_KEEP_AGE": "long"}, want: `REPRISE_KEEP_AGE="long"`},
		{args: "serve", env: map[string]string{"REPRISE_ADDR": "0.0.0.0:1"}, want: "--addr 0.0.0.0:1 would let"},
		{args: "send", want: "Usage: reprise send ROOM [TEXT]"},
		{args: "send lobby a b", want: "accepts between 1 and 2 arg(s)"},
		{args: "tail", want: "Usage: reprise tail ROOM"},
		{args: "tail lobby --last 10001", want: "--last is at most 10000"},
		{args: "tail lobby --last 1 --after 1", want: "give one"},
		{args: "tail lobby --last -1", want: "must be a whole number"},
		{args: "chat", want: "Usage: reprise chat ROOM"},
		{args: "members", want: "Usage: reprise members ROOM"},
		{args: "sessions end", want: "Usage: reprise sessions end SESSION"},
		{args: "check", want: "Usage: reprise check DIR"},
		{args: "backup", want: "Usage: reprise backup DEST"},
	} {
		r := runWith(t.Context(), c.env, "", strings.Fields(c.args)...)
		if r.code != exitUsage {
			t.Errorf("%s: exit code %d", c.args, r.code)
		}
		if !strings.Contains(r.err, c.want) || !strings.Contains(r.err, "--help.") || r.out != "" {
			t.Errorf("%s printed\n%s%s\nwant %s", c.args, r.out, r.err, c.want)
		}
	}
}

// TestNoServer has every command that needs a server say how to start one.
func TestNoServer(t *testing.T) {
	p := newPerson(t, "alice", "127.0.0.1:1")
	for _, args := range []string{
		"chat lobby", "send lobby hello", "send lobby hello --no-join", "tail lobby", "tail lobby --follow",
		"rooms", "rooms join lobby", "rooms leave lobby", "members lobby", "sessions", "sessions end s_1",
	} {
		r := p.run("", strings.Fields(args+" --timeout 2s")...)
		if r.code != exitFailure || r.out != "" {
			t.Errorf("%s: exit code %d\n%s", args, r.code, r.out)
		}
		for _, want := range []string{"no server answers at 127.0.0.1:1\n", "serve\n", "--server"} {
			if !strings.Contains(r.err, want) {
				t.Errorf("%s says\n%s\nwithout %q", args, r.err, want)
			}
		}
	}
}

// A timeout that nothing can meet is said to be one, and not a server's silence.
func TestTimeoutOfNothing(t *testing.T) {
	p := newPerson(t, "alice", "127.0.0.1:1")
	for _, timeout := range []string{"0s", "-5s"} {
		for _, args := range []string{"send lobby hello", "chat lobby", "tail lobby", "rooms", "sessions"} {
			r := p.run("", strings.Fields(args+" --timeout "+timeout)...)
			if want := "--timeout must be more than 0, and is " + timeout; r.code == 0 || !strings.Contains(r.err, want) {
				t.Errorf("%s: exit code %d\n%s\nwant %s", args, r.code, r.err, want)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	p := newPerson(t, "alice", "")
	if out := p.ok("", "version"); !strings.HasPrefix(out, "reprise ") {
		t.Error(out)
	}
	if all := objects[build](t, p.ok("", "version", "--json")); len(all) != 1 || all[0].Version == "" || all[0].Go == "" {
		t.Error(all)
	}
	if out := p.ok("", "--version"); !strings.HasPrefix(out, "reprise ") {
		t.Error(out)
	}
}

func TestDefaultCommand(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{"", "serve"},
		{"--addr x", "serve --addr x"},
		{"--help", "--help"},
		{"-h", "-h"},
		{"--version", "--version"},
		{"chat lobby", "chat lobby"},
	} {
		if got := strings.Join(withDefault(strings.Fields(c.in)), " "); got != c.out {
			t.Errorf("%q became %q", c.in, got)
		}
	}
}
