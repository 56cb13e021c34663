// Package etcdprom is a Prometheus collector for a Conn of kitex-etcd: the state of the process's own records in etcd, and what its
// clients know about the services that they call.
//
//	metrics := etcdprom.New()
//	conn, err := etcd.Connect(endpoints, etcd.WithEventHandler(metrics.Handle))
//	…
//	metrics.Attach(conn)
//	prometheus.MustRegister(metrics)
//
// These are the metrics. A scrape reads memory; it does not ask etcd, and does not count as a use of a service.
//
//	kitex_etcd_records{service,state}       gauge: records of the process's servers, from registering to deregistering.
//	                                        "standing": in etcd; "lost": not in etcd, will be written again; "unknown":
//	                                        etcd has not confirmed the lease for a TTL; "taken": another process has the
//	                                        address; "drained": taken out by an operator
//	kitex_etcd_lease_confirmed_timestamp_seconds
//	                                        gauge: when etcd last confirmed the lease of these records, in Unix time;
//	                                        missing until it has
//	kitex_etcd_lease_ttl_seconds            gauge: how long the lease lasts from that time on
//	kitex_etcd_instances{service}           gauge: instances of a service that the clients of the process know
//	kitex_etcd_instances_ejected{service}   gauge: how many of them get no calls because they do not answer
//	kitex_etcd_instances_protected{service} gauge: how many of them are no longer in etcd, but still used for a while
//	kitex_etcd_instances_confirmed_timestamp_seconds{service}
//	                                        gauge: when etcd last confirmed them, in Unix time; missing until it has
//	kitex_etcd_invalid_records{service}     gauge: keys of a service that are ignored because they are not instances
//	kitex_etcd_changes_total{service}       counter: changes of the list of instances
//	kitex_etcd_change_to_picker_seconds     histogram: time from etcd's message about a change until all clients of the
//	                                        process use it
//	kitex_etcd_events_total{type,service}   counter: events of the Conn; type is the name of an [etcd.EventType], such
//	                                        as "lease lost"; service is empty if the event is about all services
//	kitex_etcd_events_dropped_total         counter: events that were dropped because a handler was too slow
//	kitex_etcd_build_info{version,goversion}
//	                                        gauge: 1; the version of kitex-etcd in the program
//
// A service that no client used for 3 minutes has no gauges until its next use, because etcd is not asked about it.
//
// It is a separate package so that programs without Prometheus need not build it.
package etcdprom

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

var (
	recordsDesc = prometheus.NewDesc("kitex_etcd_records",
		"Records of this process's servers: standing (in etcd), lost (will be written again), unknown (etcd has not confirmed the lease for a TTL), taken (another process has the address), drained (by an operator).",
		[]string{"service", "state"}, nil)
	leaseDesc = prometheus.NewDesc("kitex_etcd_lease_confirmed_timestamp_seconds",
		"Unix time at which etcd last confirmed the lease of this process's records.", nil, nil)
	ttlDesc = prometheus.NewDesc("kitex_etcd_lease_ttl_seconds",
		"How long the lease of this process's records lasts after etcd has confirmed it.", nil, nil)
	instancesDesc = prometheus.NewDesc("kitex_etcd_instances",
		"Instances of a service in use that the clients of this process know.", []string{"service"}, nil)
	ejectedDesc = prometheus.NewDesc("kitex_etcd_instances_ejected",
		"Instances of a service in use that get no calls from this process because they do not answer.", []string{"service"}, nil)
	protectedDesc = prometheus.NewDesc("kitex_etcd_instances_protected",
		"Instances of a service in use that are no longer in etcd, but still used for a while.", []string{"service"}, nil)
	confirmedDesc = prometheus.NewDesc("kitex_etcd_instances_confirmed_timestamp_seconds",
		"Unix time at which etcd last confirmed the instances of a service in use.", []string{"service"}, nil)
	invalidDesc = prometheus.NewDesc("kitex_etcd_invalid_records",
		"Keys of a service in use that are ignored because they are not instances.", []string{"service"}, nil)
	changesDesc = prometheus.NewDesc("kitex_etcd_changes_total",
		"Changes of the list of instances of a service.", []string{"service"}, nil)
	pickerDesc = prometheus.NewDesc("kitex_etcd_change_to_picker_seconds",
		"Time from etcd's message about a change until all clients of this process use it.", nil, nil)
	buildDesc = prometheus.NewDesc("kitex_etcd_build_info",
		"The version of kitex-etcd in this program; the value is always 1.", []string{"version", "goversion"}, nil)

	descs = []*prometheus.Desc{
		recordsDesc, leaseDesc, ttlDesc, instancesDesc, ejectedDesc, protectedDesc, confirmedDesc, invalidDesc, changesDesc, pickerDesc, buildDesc,
	}
)

// Collector collects the metrics of one Conn. Make it with New. A program with several Conns makes one for each, and registers them with
// different labels (prometheus.WrapRegistererWith). Its methods are safe for concurrent use.
type Collector struct {
	conn    atomic.Pointer[etcd.Conn]
	version string
	events  *prometheus.CounterVec
	dropped prometheus.Counter
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a Collector without a Conn. It has no services and no records until Attach.
func New() *Collector {
	c := &Collector{
		version: version(),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kitex_etcd_events_total",
			Help: "Events of registration, discovery and calls.",
		}, []string{"type", "service"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kitex_etcd_events_dropped_total",
			Help: "Events that were dropped because their handler was too slow.",
		}),
	}
	// increase() does not count the first event of a counter that begins with it. The counters of single services do begin so:
	// alerts use gauges for them.
	for t := etcd.EventRegistered; t.Known(); t++ {
		c.events.WithLabelValues(t.String(), "")
	}
	return c
}

// version is that of this module in the program.
func version() string {
	const module = "github.com/kitex-contrib/kitex-etcd"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module && m.Version != "" {
			return m.Version
		}
	}
	return "unknown"
}

// Handle counts an event. Give it to etcd.WithEventHandler, or call it from the handler given there. It returns at once.
func (c *Collector) Handle(ev etcd.Event) {
	c.events.WithLabelValues(ev.Type.String(), ev.Service).Inc()
	c.dropped.Add(float64(ev.Dropped))
}

// Attach sets the Conn whose records and services are shown from now on; nil means none. The Conn may be closed before or after.
func (c *Collector) Attach(conn *etcd.Conn) { c.conn.Store(conn) }

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	c.events.Describe(to)
	c.dropped.Describe(to)
	for _, d := range descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	c.events.Collect(metrics)
	c.dropped.Collect(metrics)
	to := sink(metrics)
	to.gauge(buildDesc, 1, c.version, runtime.Version())
	conn := c.conn.Load()
	to.records(conn.Registered())
	for _, s := range conn.Services() {
		to.counter(changesDesc, float64(s.Changes), s.Service)
		if !s.Idle {
			to.service(s)
		}
	}
	pushes := conn.PushTimes()
	metrics <- prometheus.MustNewConstHistogram(pickerDesc, pushes.Count, pushes.Sum.Seconds(), pushes.Buckets)
}

// sink takes the metrics of a scrape.
type sink chan<- prometheus.Metric

func (to sink) gauge(desc *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
}

func (to sink) counter(desc *prometheus.Desc, value float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
}

func (to sink) records(records []etcd.RegisteredStatus) {
	counts := make(map[string]map[etcd.RegisteredState]int) // of each service by state
	for _, r := range records {
		if counts[r.Service] == nil {
			counts[r.Service] = make(map[etcd.RegisteredState]int)
		}
		counts[r.Service][r.State]++
	}
	for service, count := range counts {
		for s := etcd.StateStanding; s.Known(); s++ {
			to.gauge(recordsDesc, float64(count[s]), service, s.String())
		}
	}
	if len(records) > 0 && !records[0].Confirmed.IsZero() {
		to.gauge(leaseDesc, unix(records[0].Confirmed))
		to.gauge(ttlDesc, records[0].TTL.Seconds())
	}
}

func (to sink) service(s etcd.ServiceStatus) {
	to.gauge(instancesDesc, float64(s.Instances), s.Service)
	to.gauge(ejectedDesc, float64(s.Ejected), s.Service)
	to.gauge(protectedDesc, float64(s.Protected), s.Service)
	to.gauge(invalidDesc, float64(s.Invalid), s.Service)
	if !s.Synced.IsZero() {
		to.gauge(confirmedDesc, unix(s.Synced), s.Service)
	}
}

func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
