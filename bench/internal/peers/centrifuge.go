package peers

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/reprise-chat/reprise/bench/internal/lean"
	"github.com/reprise-chat/reprise/bench/internal/load"
	"github.com/reprise-chat/reprise/bench/internal/proc"
)

// Centrifuge is a server on the library of Centrifugo.
type Centrifuge struct {
	noSetup

	// Batching has the server wait a little for more messages to a client, and
	// send many at once: see batching in its server.
	Batching bool
}

// Name implements load.Target.
func (c Centrifuge) Name() string {
	if c.Batching {
		return "centrifuge, batching"
	}
	return "centrifuge"
}

// Start implements load.Target.
func (c Centrifuge) Start(_ string, port uint16) (*proc.Server, error) {
	kind := kindCentrifuge
	if c.Batching {
		kind = kindCentrifugeBatching
	}
	return proc.Self(Command, kind, loopback(port))
}

// Dial implements load.Target.
func (Centrifuge) Dial(loop *lean.Loop, addr netip.AddrPort, cfg load.Config, on load.On) load.Client {
	c := &centrifugeClient{common: newCommon(cfg, on)}
	c.ws = &webSocket{
		path: centrifugePath, protocol: "centrifuge-protobuf", opcode: opBinary,
		opened: c.opened, message: c.message, gone: c.gone,
	}
	loop.Dial(addr, c.ws)
	return c
}

// Fields of the protocol, version 2:
// https://github.com/centrifugal/protocol/blob/master/definitions/client.proto
const (
	commandID        = 1
	commandConnect   = 4
	commandSubscribe = 5
	commandPublish   = 7
	connectToken     = 1
	requestChannel   = 1 // of subscribe and of publish
	publishData      = 2

	replyID      = 1
	replyError   = 2
	replyPush    = 4
	errorCode    = 1
	errorMessage = 2

	pushChannel     = 2
	pushPub         = 4
	pushUnsubscribe = 7
	pushDisconnect  = 11
	pubData         = 4

	// Ids of commands: one for connect, one for each room, and then the
	// publications.
	idConnect = 1
	idRooms   = 2
	idPublish = 1 << 16
)

// centrifugeClient speaks Centrifuge's protocol in Protobuf.
type centrifugeClient struct {
	common
	ws *webSocket
	// Buffers of send.
	request, command, frame []byte
}

func (c *centrifugeClient) opened() {
	c.send(idConnect, commandConnect, appendField(c.request[:0], connectToken, []byte(c.cfg.User)))
}

// Attach implements load.Client: it subscribes to the rooms.
func (c *centrifugeClient) Attach() {
	if c.unanswered = len(c.cfg.Rooms); c.cfg.Deaf || c.unanswered == 0 {
		c.ready() // who is connected can publish
		return
	}
	for i, r := range c.cfg.Rooms {
		c.send(idRooms+uint64(i), commandSubscribe, appendField(c.request[:0], requestChannel, []byte(r)))
	}
}

// Publish implements load.Client. Centrifuge has no idempotency key.
func (c *centrifugeClient) Publish(room int, number uint64, _ string, body []byte) {
	m := appendField(c.request[:0], requestChannel, []byte(c.cfg.Rooms[room]))
	c.send(idPublish+number, commandPublish, appendField(m, publishData, body))
}

// Close implements load.Client.
func (c *centrifugeClient) Close() {
	c.closed = true
	c.ws.Close()
}

// send sends a command: ids are of 32 bits, and run over after four billion
// publications.
func (c *centrifugeClient) send(id uint64, kind protowire.Number, request []byte) {
	c.request = request
	m := protowire.AppendTag(c.command[:0], commandID, protowire.VarintType)
	m = protowire.AppendVarint(m, uint64(uint32(id)))
	c.command = appendField(m, kind, request)
	c.frame = protowire.AppendBytes(c.frame[:0], c.command)
	c.ws.Send(c.frame)
}

func appendField(b []byte, num protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
}

// message takes a frame: replies, each behind its length.
func (c *centrifugeClient) message(b []byte) error {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 || uint64(len(b)-n) < size {
			return fmt.Errorf("%w: reply of %d bytes in a frame of %d", errProtocol, size, len(b))
		}
		if err := c.reply(b[n : n+int(size)]); err != nil {
			return err
		}
		b = b[n+int(size):]
	}
	return nil
}

func (c *centrifugeClient) reply(b []byte) error {
	if len(b) == 0 { // a ping, and an empty command is the answer
		c.ws.Send([]byte{0})
		return nil
	}
	var id uint64
	var push, failed []byte
	err := fields(b, func(num protowire.Number, v []byte, n uint64) {
		switch num {
		case replyID:
			id = n
		case replyPush:
			push = v
		case replyError:
			failed = v
		}
	})
	switch {
	case err != nil:
		return err
	case push != nil:
		return c.push(push)
	case id >= idPublish:
		c.receipt(id-idPublish, refused(failed))
		return nil
	case failed != nil:
		return refused(failed)
	case id == idConnect:
		c.connected(c.Attach)
	case id >= idRooms:
		c.joined()
	}
	return nil
}

func refused(b []byte) error {
	if b == nil {
		return nil
	}
	var code uint64
	var message []byte
	err := fields(b, func(num protowire.Number, v []byte, n uint64) {
		switch num {
		case errorCode:
			code = n
		case errorMessage:
			message = v
		}
	})
	if err != nil {
		return err
	}
	return fmt.Errorf("peers: centrifuge refuses with %d %s", code, message)
}

func (c *centrifugeClient) push(b []byte) error {
	var channel, pub []byte
	var other protowire.Number
	err := fields(b, func(num protowire.Number, v []byte, _ uint64) {
		switch num {
		case pushChannel:
			channel = v
		case pushPub:
			pub = v
		case pushUnsubscribe, pushDisconnect:
			other = num
		}
	})
	switch {
	case err != nil:
		return err
	case other != 0:
		return fmt.Errorf("peers: centrifuge ends a subscription or connection: %q", b)
	case pub == nil:
		return nil
	}
	var data []byte
	err = fields(pub, func(num protowire.Number, v []byte, _ uint64) {
		if num == pubData {
			data = v
		}
	})
	if err != nil {
		return err
	}
	return c.event(channel, data)
}

// fields calls f for each field, with its bytes or its number.
func fields(b []byte, f func(num protowire.Number, v []byte, n uint64)) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errProtocol, protowire.ParseError(n))
		}
		b = b[n:]
		var v []byte
		var x uint64
		switch typ {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errProtocol, protowire.ParseError(n))
		}
		f(num, v, x)
		b = b[n:]
	}
	return nil
}
