package discovery

import (
	"github.com/cloudwego/kitex/pkg/discovery"
)

// NewForTesting returns a Directory with one service that nothing follows: ShowForTesting gives it its instances.
func NewForTesting(service string) (*Directory, *Service) {
	d := new(Directory)
	s := &Service{dir: d, name: service}
	s.latest.Store(&snapshot{phase: current, replaced: make(chan struct{})})
	d.services.Store(&map[string]*Service{service: s})
	return d, s
}

// ShowForTesting gives a service another list and tells its followers, as its watcher does.
func (s *Service) ShowForTesting(list []discovery.Instance) {
	s.swap(&snapshot{phase: current, instances: list})
	for _, f := range s.attached() {
		f.Changed()
	}
}
