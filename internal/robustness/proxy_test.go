package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// network is what lies between clients and a server, and can be bad.
type network struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

// newNetwork returns a network in which nothing is wrong yet.
func newNetwork(t *testing.T, server string) *network {
	t.Helper()
	zerolog.SetGlobalLevel(zerolog.Disabled) // toxics log by themselves
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	n := &network{t: t, proxy: toxiproxy.NewProxy(api, t.Name(), "127.0.0.1:0", server)}
	if err := n.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.proxy.Stop)
	return n
}

func (n *network) address() string { return n.proxy.Listen }

// ail makes something wrong both ways, for the connections that there are and
// for those to come: a kind of toxic, in toxiproxy's words, and its
// attributes. Toxicity is the part of the connections that have it, up to 1.
func (n *network) ail(kind string, toxicity float64, attributes map[string]int) {
	n.t.Helper()
	for _, way := range []string{"upstream", "downstream"} {
		toxic, err := json.Marshal(map[string]any{
			"type": kind, "stream": way, "toxicity": toxicity, "attributes": attributes,
		})
		if err != nil {
			n.t.Fatal(err)
		}
		if _, err := n.proxy.Toxics.AddToxicJson(bytes.NewReader(toxic)); err != nil {
			n.t.Fatal(err)
		}
	}
}

// heal takes away what is wrong.
func (n *network) heal() { n.proxy.Toxics.ResetToxics(n.t.Context()) }

// call asks the server something small over a new connection.
func (n *network) call() {
	n.t.Helper()
	conn, err := grpc.NewClient(n.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(n.t.Context(), settleTimeout)
	defer cancel()
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
		n.t.Error(err)
	}
}
