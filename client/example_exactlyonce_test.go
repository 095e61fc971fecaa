package reprise_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"

	"go.etcd.io/bbolt"

	reprise "github.com/reprise-chat/reprise/client"
)

// archive writes a line for each event. The line and the position behind it are
// in one transaction, so there is one line for each event, whenever the program
// is killed.
type archive struct{ db *bbolt.DB }

var (
	lines  = []byte("lines")
	places = []byte("places") // by room
)

func openArchive(path string) (archive, error) {
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return archive{}, err
	}
	return archive{db}, db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(lines); err != nil {
			return err
		}
		_, err := tx.CreateBucketIfNotExists(places)
		return err
	})
}

// positions returns what was committed.
func (a archive) positions(context.Context) (all []reprise.Position, err error) {
	return all, a.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(places).ForEach(func(_, place []byte) error {
			var p reprise.Position
			err := json.Unmarshal(place, &p)
			all = append(all, p)
			return err
		})
	})
}

// commit adds a line and moves the room's position, both or neither.
func (a archive) commit(p reprise.Position, line string) error {
	place, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return a.db.Update(func(tx *bbolt.Tx) error {
		if err := add(tx, line); err != nil {
			return err
		}
		return tx.Bucket(places).Put([]byte(p.Room), place)
	})
}

func add(tx *bbolt.Tx, line string) error {
	n, err := tx.Bucket(lines).NextSequence()
	if err != nil {
		return err
	}
	return tx.Bucket(lines).Put(fmt.Appendf(nil, "%020d", n), []byte(line))
}

func (a archive) HandleStart(_ context.Context, p reprise.Position) error {
	return a.commit(p, fmt.Sprintf("%s begins after %d", p.Room, p.Offset))
}

func (a archive) HandleEvent(_ context.Context, e reprise.Event) error {
	return a.commit(e.Position(), e.String())
}

// HandleGap keeps that something is missing. What can be fetched stays in
// Position.Gaps, and so in Client.Gaps, until Client.FetchGap has fetched it.
func (a archive) HandleGap(_ context.Context, g reprise.Gap) error {
	return a.commit(g.Position(), g.String())
}

// HandleRewind keeps that the lines after r.To are of a history that was lost.
func (a archive) HandleRewind(_ context.Context, r reprise.Rewind) error {
	return a.commit(r.Position(), r.String())
}

func (archive) HandleRoom(context.Context, reprise.RoomState) error { return nil }

func (a archive) HandleRoomClosed(_ context.Context, c reprise.RoomClosed) error {
	return a.db.Update(func(tx *bbolt.Tx) error {
		if err := add(tx, c.Room+" is closed"); err != nil {
			return err
		}
		return tx.Bucket(places).Delete([]byte(c.Room))
	})
}

// A program that keeps its positions in its own transactions: an archive in
// which each event has exactly one line.
func ExampleHandlerStore() {
	a, err := openArchive("archive.db")
	if err != nil {
		log.Fatal(err)
	}
	defer a.db.Close()
	client, err := reprise.New(reprise.Config{
		Addresses: []string{"127.0.0.1:9090"},
		Token:     func(context.Context) (string, error) { return "dev:archive", nil },
		Positions: reprise.HandlerStore(a.positions, nil),
	})
	if err != nil {
		log.Print(err)
		return
	}
	defer client.Close()
	if err := client.Run(context.Background(), a); err != nil {
		log.Print(err)
	}
}
