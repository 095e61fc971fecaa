package command

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// limitFlags are the limits that fit some uses and not others: a program that
// imports an archive, a load test, users with very many rooms.
func (f *serveFlags) limitFlags(flags *pflag.FlagSet) {
	l := &f.limits
	flags.Float64Var(&l.Attaches, "limit-attaches", 1000, "admit this `number` of clients a second; -1 for all")
	flags.IntVar(&l.AddressConnections, "limit-address-connections", 256, "take this `number` of gRPC connections from one address; -1 for all; trusted proxies have any")
	flags.Uint32Var(&l.StreamsPerConnection, "limit-connection-streams", 100, "let a gRPC connection have this `number` of calls in progress, at least 50; its client holds further ones back")
	flags.IntVar(&l.Connections, "limit-connections", 0, "take this `number` of gRPC connections; 0 for as many as the system has descriptors for, at most 16384")
	flags.Float64Var(&l.RoomPublishes, "limit-room-publishes", 2000, "take this `number` of events a second into one room; -1 for all")
	flags.Float64Var(&l.UserCreates, "limit-user-creates", 10, "let a user make this `number` of rooms a second; -1 for any")
	flags.Float64Var(&l.UserPublishes, "limit-user-publishes", 200, "take this `number` of events a second from one user; -1 for all")
	flags.IntVar(&l.RoomsPerUser, "limit-user-rooms", 1000, "let a user be a member of this `number` of rooms")
	flags.IntVar(&l.AddressWebCalls, "limit-address-web-calls", 192, "let one address have this `number` of calls and streams open on the port for browsers")
	flags.IntVar(&l.AddressWebConnections, "limit-address-web-connections", 256, "let one address have this `number` of connections to the port for browsers; trusted proxies have any")
	flags.IntVar(&l.WebCalls, "limit-web-calls", 4096, "keep this `number` of calls and streams open on the port for browsers")
	flags.IntVar(&l.WebConnections, "limit-web-connections", 0, "keep this `number` of connections open on the port for browsers; 0 for as many as the system has descriptors for, at most 8192")
	flags.IntVar(&l.SessionsPerUser, "limit-user-sessions", 32, "keep this `number` of sessions of a user")
	flags.IntVar(&l.TailsPerUser, "limit-user-tails", 100, "let a user follow rooms with this `number` of tails")
}

// checkLimits refuses what a server would take for its default.
func (f *serveFlags) checkLimits(cmd *cobra.Command) error {
	l := &f.limits
	for _, rate := range []struct {
		flag  string
		value float64
	}{
		{"limit-attaches", l.Attaches},
		{"limit-room-publishes", l.RoomPublishes},
		{"limit-user-creates", l.UserCreates},
		{"limit-user-publishes", l.UserPublishes},
	} {
		if rate.value != -1 && !(rate.value > 0) {
			return usagef(cmd, "--%s must be more than 0, or -1 for no limit, and is %v", rate.flag, rate.value)
		}
	}
	for _, number := range []struct {
		flag  string
		value int
	}{
		{"limit-address-web-calls", l.AddressWebCalls},
		{"limit-address-web-connections", l.AddressWebConnections},
		{"limit-user-rooms", l.RoomsPerUser},
		{"limit-user-sessions", l.SessionsPerUser},
		{"limit-web-calls", l.WebCalls},
		{"limit-user-tails", l.TailsPerUser},
		{"limit-connection-streams", int(l.StreamsPerConnection)},
	} {
		if number.value <= 0 {
			return usagef(cmd, "--%s must be more than 0, and is %d", number.flag, number.value)
		}
	}
	for flag, n := range map[string]int{"limit-connections": l.Connections, "limit-web-connections": l.WebConnections} {
		if n < 0 {
			return usagef(cmd, "--%s must be more than 0, or 0 for as many as there is room for, and is %d", flag, n)
		}
	}
	if n := l.AddressConnections; n <= 0 && n != -1 {
		return usagef(cmd, "--limit-address-connections must be more than 0, or -1 for no limit, and is %d", n)
	}
	return nil
}
