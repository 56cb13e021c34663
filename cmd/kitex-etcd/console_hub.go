package main

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	// changesKept is how many changes a page that is opened shows of the time before.
	changesKept = 200
	// consoleReread is how often everything is read anew, besides the watch: see askEvery.
	consoleReread = 5 * time.Minute
	// pageBuffer is how many messages a page may be behind; one that is further behind begins anew.
	pageBuffer = 256
	// maxPages bounds the pages that are open at once.
	maxPages = 500
)

// hub tells every open page of the console what etcd holds, and what changes. One watcher feeds it, whatever the number of pages.
//
// Its goroutine, run, owns all that follows about. Others have it do something by a function.
type hub struct {
	work chan func()
	done <-chan struct{} // closed when run is to end

	prefix, markPrefix string // of the keys of records and of marks

	about   about
	items   map[string]*consoleItem  // by what their keys have after the prefix
	leases  map[clientv3.LeaseID]int // how many items stand under each
	changes []consoleChange          // the last ones, the oldest first
	pages   map[*page]struct{}
	seq     int64  // counts the messages
	state   []byte // the state as JSON; nil when it has to be made anew
}

// about is what a page knows of the console itself.
type about struct {
	Cluster  string     `json:"cluster"`
	Prefix   string     `json:"prefix"`
	Writable bool       `json:"writable"`
	Loading  bool       `json:"loading"`         // etcd has not answered yet
	Error    string     `json:"error,omitempty"` // why etcd does not answer
	Since    *time.Time `json:"since,omitempty"` // since when
}

// consoleItem is one line of the page: a record with its mark, or a mark whose server has no record.
type consoleItem struct {
	ID string `json:"id"`
	instance

	record *etcd.Record
	placed etcd.PlacedMark
}

// consoleChange is one line of the stream of changes.
type consoleChange struct {
	Time    time.Time `json:"time"`
	Event   string    `json:"event"` // as of kitex-etcd watch
	Service string    `json:"service"`
	Address string    `json:"address"`
	What    string    `json:"what,omitempty"`
}

// page is one open page.
type page struct {
	messages chan []byte // closed when the page is too far behind
}

func newHub(ctx context.Context, conn *etcd.Conn, a about) *hub {
	a.Loading = true
	return &hub{
		work: make(chan func()), done: ctx.Done(), prefix: a.Prefix + "/", markPrefix: conn.MarkPrefix(""), about: a,
		items: make(map[string]*consoleItem), leases: make(map[clientv3.LeaseID]int), pages: make(map[*page]struct{}),
	}
}

func (h *hub) run() {
	for {
		select {
		case f := <-h.work:
			f()
		case <-h.done:
			return
		}
	}
}

// do has run call f, and returns when it has; false means that the console ends.
func (h *hub) do(f func()) bool {
	called := make(chan struct{})
	select {
	case h.work <- func() { defer close(called); f() }:
		<-called
		return true
	case <-h.done:
		return false
	}
}

// feed follows etcd until ctx ends.
func (h *hub) feed(ctx context.Context, conn *etcd.Conn) {
	w := newWatcher(conn, h.about.Prefix, selection{}, consoleReread, h)
	c := w.reread(ctx)
	if c == nil {
		return
	}
	_ = w.update(c, "present") // the hub reports no errors
	h.do(func() {
		h.about.Loading = false
		h.sendAbout()
	})
	_ = w.run(ctx, c)
}

// record is told by the watcher.
func (h *hub) record(event string, r etcd.Record, what string) error {
	h.do(func() {
		item := h.item(strings.TrimPrefix(r.Key, h.prefix), r.Service, addressOf(r))
		if item.record != nil {
			h.count(item.record.Lease, -1)
		}
		if item.record = &r; event == "removed" {
			item.record = nil
		} else {
			h.count(r.Lease, 1)
		}
		h.changed(item, consoleChange{Event: event, What: what})
	})
	return nil
}

// mark is told by the watcher.
func (h *hub) mark(event string, m etcd.PlacedMark) error {
	h.do(func() {
		item := h.item(strings.TrimPrefix(m.Key, h.markPrefix), m.Service, m.Address)
		item.placed = m
		what := markText(m)
		if event == "unmarked" {
			item.placed = etcd.PlacedMark{}
		}
		h.changed(item, consoleChange{Event: event, What: what})
	})
	return nil
}

// lost and found are told by the watcher.
func (h *hub) lost(err error) { h.etcdIs(err.Error()) }
func (h *hub) found()         { h.etcdIs("") }

func (h *hub) etcdIs(trouble string) {
	h.do(func() {
		h.about.Error, h.about.Since = trouble, nil
		if trouble != "" {
			now := time.Now()
			h.about.Since = &now
		}
		h.sendAbout()
	})
}

func (h *hub) item(id, service, addr string) *consoleItem {
	if h.items[id] == nil {
		h.items[id] = &consoleItem{ID: id}
		h.items[id].Service, h.items[id].Address = service, addr
	}
	return h.items[id]
}

func (h *hub) count(id clientv3.LeaseID, n int) {
	if h.leases[id] += n; h.leases[id] == 0 {
		delete(h.leases, id)
	}
}

// changed tells the pages of an item.
func (h *hub) changed(item *consoleItem, c consoleChange) {
	h.state = nil
	id, service, addr := item.ID, item.Service, item.Address
	there := item.record != nil || item.placed.Key != ""
	if !there {
		delete(h.items, id)
	}
	item.instance = instance{}
	if item.record != nil {
		item.instance = newInstance(*item.record)
	}
	item.instance = item.marked(item.placed)
	item.Service, item.Address = service, addr
	if h.about.Loading {
		return // no change: it was there
	}
	c.Time, c.Service, c.Address = time.Now(), service, addr
	h.changes = append(h.changes, c)
	if n := len(h.changes) - changesKept; n > 0 {
		h.changes = append([]consoleChange(nil), h.changes[n:]...)
	}
	h.seq++
	update := struct {
		Seq    int64         `json:"seq"`
		ID     string        `json:"id"`
		Item   *consoleItem  `json:"item"` // null when it is gone
		Change consoleChange `json:"change"`
	}{h.seq, id, item, c}
	if !there {
		update.Item = nil
	}
	h.send(message("item", update))
}

// send gives every page a message. A page that does not keep up is let go of; its browser begins anew.
func (h *hub) send(m []byte) {
	for p := range h.pages {
		select {
		case p.messages <- m:
		default:
			close(p.messages)
			delete(h.pages, p)
		}
	}
}

// aboutMessage is what a page hears first, and when it changes.
type aboutMessage struct {
	Seq int64 `json:"seq"`
	about
}

func (h *hub) sendAbout() {
	h.seq++
	h.state = nil
	h.send(message("about", aboutMessage{h.seq, h.about}))
}

// consoleState is what etcd holds, after all messages up to Seq.
type consoleState struct {
	aboutMessage
	Items   []*consoleItem  `json:"items"`
	Changes []consoleChange `json:"changes"`
}

// stateText is the state as JSON.
func (h *hub) stateText() []byte {
	if h.state == nil {
		s := consoleState{aboutMessage: aboutMessage{h.seq, h.about}, Items: make([]*consoleItem, 0, len(h.items)), Changes: h.changes}
		for _, item := range h.items {
			s.Items = append(s.Items, item)
		}
		h.state = asJSON(s)
	}
	return h.state
}

// open returns a new page, whose first message is about the console; nil if there are too many.
func (h *hub) open() (p *page) {
	h.do(func() {
		if len(h.pages) >= maxPages {
			return
		}
		p = &page{messages: make(chan []byte, pageBuffer)}
		p.messages <- message("about", aboutMessage{h.seq, h.about})
		h.pages[p] = struct{}{}
	})
	return p
}

func (h *hub) close(p *page) {
	h.do(func() { delete(h.pages, p) })
}

// known returns those of ids under which something stands that the page shows: nobody may have etcd asked about others.
func (h *hub) known(ids []clientv3.LeaseID) (known []clientv3.LeaseID) {
	h.do(func() {
		for _, id := range ids {
			if h.leases[id] > 0 {
				known = append(known, id)
			}
		}
	})
	return known
}

// message is a server-sent event.
func message(event string, v any) []byte {
	return append(append([]byte("event: "+event+"\ndata: "), asJSON(v)...), "\n\n"...)
}

func asJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types have no values that JSON lacks
	}
	return text
}
