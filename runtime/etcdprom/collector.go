// Package etcdprom shows Prometheus what a Conn of kitex-etcd does: which of the process's own records stand in etcd, and
// what its clients know of the services they call.
//
//	metrics := etcdprom.New()
//	conn, err := etcd.Connect(endpoints, etcd.WithEventHandler(metrics.Handle))
//	…
//	metrics.Attach(conn)
//	prometheus.MustRegister(metrics)
//
// These are the metrics. A scrape reads memory; it asks etcd nothing and keeps no service awake.
//
//	kitex_etcd_events_total{type}           counter: events of the Conn; type is the name of an [etcd.EventType],
//	                                        such as "lease lost"; all are there from the beginning
//	kitex_etcd_events_dropped_total         counter: events that were dropped because a handler did not keep up
//	kitex_etcd_records{service,state}       gauge: records of the process's servers, from their registration to their
//	                                        deregistration: "standing" in etcd, "lost" and to be restored, "taken"
//	                                        over by another process, or "drained" by an operator
//	kitex_etcd_instances{service}           gauge: instances that clients of the process see of a service
//	kitex_etcd_instances_ejected{service}   gauge: how many of them are not called because they do not answer
//	kitex_etcd_instances_confirmed_timestamp_seconds{service}
//	                                        gauge: when etcd last confirmed them, as Unix time; 0 if it never has
//
// A service that no client used for minutes has none of the last three until its next use: nobody asks etcd about it.
//
// It is a package of its own so that programs without Prometheus need not build it.
package etcdprom

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

var (
	recordsDesc = prometheus.NewDesc("kitex_etcd_records",
		"Records of this process's servers: standing in etcd, lost and to be restored, taken over by another process, or drained by an operator.",
		[]string{"service", "state"}, nil)
	instancesDesc = prometheus.NewDesc("kitex_etcd_instances",
		"Instances that clients of this process see of a service that is in use.", []string{"service"}, nil)
	ejectedDesc = prometheus.NewDesc("kitex_etcd_instances_ejected",
		"Instances of a service that is in use that clients of this process do not call because they do not answer.", []string{"service"}, nil)
	confirmedDesc = prometheus.NewDesc("kitex_etcd_instances_confirmed_timestamp_seconds",
		"Unix time at which etcd last confirmed the instances of a service that is in use; 0 if it never has.", []string{"service"}, nil)
)

// Collector collects the metrics of one Conn. A program with several Conns makes one for each, and registers them with
// labels of their own (prometheus.WrapRegistererWith). Make it with New. Its methods are safe for concurrent use.
type Collector struct {
	conn    atomic.Pointer[etcd.Conn]
	events  *prometheus.CounterVec
	dropped prometheus.Counter

	mu      sync.Mutex
	records map[string]record // by key
}

// record is what the events told of one.
type record struct {
	service string
	state   state
}

type state string

const (
	standing state = "standing"
	lost     state = "lost"
	taken    state = "taken"
	drained  state = "drained"
)

var _ prometheus.Collector = (*Collector)(nil)

// New returns a Collector without a Conn, which knows no services yet.
func New() *Collector {
	c := &Collector{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kitex_etcd_events_total",
			Help: "Events of registration, discovery and calls.",
		}, []string{"type"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kitex_etcd_events_dropped_total",
			Help: "Events that were dropped because their handler did not keep up.",
		}),
		records: make(map[string]record),
	}
	// A counter that begins with its first event hides that one from increase().
	for t := etcd.EventRegistered; t.Known(); t++ {
		c.events.WithLabelValues(t.String())
	}
	return c
}

// Handle takes an event in. Give it to etcd.WithEventHandler, or call it from the handler given there. It returns at once.
func (c *Collector) Handle(ev etcd.Event) {
	c.events.WithLabelValues(ev.Type.String()).Inc()
	c.dropped.Add(float64(ev.Dropped))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch ev.Type {
	case etcd.EventRegistered, etcd.EventRestored, etcd.EventUndrained:
		c.records[ev.Key] = record{ev.Service, standing}
	case etcd.EventRecordLost:
		c.records[ev.Key] = record{ev.Service, lost}
	case etcd.EventTakenOver:
		c.records[ev.Key] = record{ev.Service, taken}
	case etcd.EventDrained:
		c.records[ev.Key] = record{ev.Service, drained}
	case etcd.EventDeregistered:
		delete(c.records, ev.Key)
	case etcd.EventLeaseLost:
		for key, r := range c.records {
			if r.state == standing {
				c.records[key] = record{r.service, lost}
			}
		}
	}
}

// Attach names the Conn whose services are shown from now on; nil means none. The Conn may be closed before or after.
func (c *Collector) Attach(conn *etcd.Conn) { c.conn.Store(conn) }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	c.events.Describe(descs)
	c.dropped.Describe(descs)
	descs <- recordsDesc
	descs <- instancesDesc
	descs <- ejectedDesc
	descs <- confirmedDesc
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	c.events.Collect(metrics)
	c.dropped.Collect(metrics)
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for service, counts := range c.count() {
		for _, s := range []state{standing, lost, taken, drained} {
			gauge(recordsDesc, float64(counts[s]), service, string(s))
		}
	}
	for _, s := range c.conn.Load().Services() {
		if s.Idle {
			continue
		}
		confirmed := 0.0
		if !s.Synced.IsZero() {
			confirmed = float64(s.Synced.UnixMilli()) / 1000
		}
		gauge(instancesDesc, float64(s.Instances), s.Service)
		gauge(ejectedDesc, float64(s.Ejected), s.Service)
		gauge(confirmedDesc, confirmed, s.Service)
	}
}

// count counts the records of each service by state.
func (c *Collector) count() map[string]map[state]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[string]map[state]int)
	for _, r := range c.records {
		if counts[r.service] == nil {
			counts[r.service] = make(map[state]int)
		}
		counts[r.service][r.state]++
	}
	return counts
}
