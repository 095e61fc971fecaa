package command

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
)

// FuzzBackupRequest sends any bytes through the door for backups: there is one
// answer, and nothing is copied to a place that is not absolute.
func FuzzBackupRequest(f *testing.F) {
	f.Add([]byte(`{"dest":"/backups/1"}` + "\n"))
	f.Add([]byte(`{"dest":"backups/1"}` + "\n" + `{"dest":"/backups/2"}` + "\n"))
	f.Add([]byte(`{"dest":7}` + "\n"))
	f.Add([]byte("\n"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		copied := ""
		d := &door{log: slog.New(slog.DiscardHandler), backup: func(_ context.Context, dest string) error {
			copied = dest
			return nil
		}}
		here, there := net.Pipe()
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			d.answer(t.Context(), there)
		}()
		wrote := make(chan struct{})
		go func() {
			defer close(wrote)
			_, _ = here.Write(append(in, '\n')) // not all of it is read
		}()
		out, err := io.ReadAll(here)
		here.Close()
		<-wrote
		<-answered
		var a backupAnswer
		if err != nil || json.Unmarshal(out, &a) != nil {
			t.Fatalf("the answer is %q, %v", out, err)
		}
		if (copied != "") != (a.Error == "") || copied != "" && !filepath.IsAbs(copied) {
			t.Errorf("copied to %q, answered %q", copied, a.Error)
		}
	})
}
