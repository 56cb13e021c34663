package health

import "time"

// EjectForTesting ejects addr, whose record is id, for ever.
func (t *Tracker) EjectForTesting(addr string, id any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries[addr] = &entry{id: id, state: ejected, due: time.Now().Add(24 * time.Hour)}
	t.counts[ejected]++
	t.moved = true
	t.update()
}
