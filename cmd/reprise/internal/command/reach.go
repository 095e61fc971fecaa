package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	reprise "github.com/reprise-chat/reprise/client"
)

// tls returns how connections are secured; nil means that they are not: to this
// machine, or with --plaintext.
func (f *clientFlags) tls() (*tls.Config, error) {
	switch {
	case f.plaintext && f.caCert != "":
		return nil, errors.New("--plaintext uses no certificates: leave it out, or --ca-cert")
	case f.plaintext:
		return nil, nil //nolint:nilnil // as in net/http: nil is a configuration
	case f.caCert == "" && !slices.ContainsFunc(f.servers, func(s string) bool { return !reprise.IsLoopback(s) }):
		return nil, nil //nolint:nilnil // likewise
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caCert == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(f.caCert)
	if err != nil {
		return nil, fmt.Errorf("--ca-cert: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-cert: there is no certificate in %s: it must be PEM, with BEGIN CERTIFICATE", f.caCert)
	}
	return cfg, nil
}

// reach fails if nobody serves at any of the addresses, and puts first the one
// where somebody does. The client would go on trying, which is right for a
// program that must come back by itself, and wrong for a person who forgot to
// start the server.
func (f *clientFlags) reach(ctx context.Context, cfg *reprise.Config) (err error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	for i, address := range f.servers {
		var conn net.Conn
		if conn, err = dial(ctx, address, cfg.TLS); err == nil {
			cfg.Addresses = slices.Concat(f.servers[i:], f.servers[:i])
			return conn.Close()
		}
	}
	return f.noServer(err)
}

func dial(ctx context.Context, address string, secure *tls.Config) (net.Conn, error) {
	if secure == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	cfg := secure.Clone()
	cfg.NextProtos = []string{"h2"}
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", address)
}

// noServer says that there was nobody to talk to, and what to do.
func (f *clientFlags) noServer(err error) error {
	where := strings.Join(f.servers, ", ")
	message := fmt.Sprintf("no server answers at %s\nStart one with: %s serve\nOr name another with --server. (%s)", where, self(), plainMessage(err))
	var certificate *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &certificate):
		message = fmt.Sprintf("the certificate of %s is not to be trusted: %v\nIf its authority is your own, name it with --ca-cert.", where, certificate.Err)
	case errors.As(err, &noTLS):
		message = fmt.Sprintf("what answers at %s does not speak TLS\nIf you trust the network in between, say --plaintext.", where)
	}
	return &explainedError{message: message, err: err}
}
