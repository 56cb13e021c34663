package roster

// Seed takes over instances from before etcd was first asked, as if etcd held them. The first Replace takes their place
// whole: those that are missing then were never lost, and those that say the same stay the same pointers, under whatever
// lease.
func (r *Roster) Seed(instances []*Instance) {
	for _, inst := range instances {
		r.touch(inst.key)
		r.count(r.held[inst.key].inst, inst)
		r.held[inst.key] = holding{inst: inst, seeded: true}
	}
}
