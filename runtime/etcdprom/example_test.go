package etcdprom_test

import (
	"context"
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdprom"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

func Example() {
	cluster, err := etcdtest.New() // the etcd of this example
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	metrics := etcdprom.New()
	conn, err := etcd.Connect(cluster.Endpoints(), etcd.WithEventHandler(metrics.Handle))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	metrics.Attach(conn)

	registry := prometheus.NewRegistry() // or prometheus.MustRegister, for the default one
	registry.MustRegister(metrics)

	// A client has been looking for Hello, which no server offers.
	if _, err := conn.Instances(context.Background(), "Hello"); err != nil {
		log.Fatal(err)
	}
	families, err := registry.Gather() // what a scrape does
	if err != nil {
		log.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "kitex_etcd_instances" {
			m := family.GetMetric()[0]
			fmt.Println(family.GetName(), m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
		}
	}
	// Output: kitex_etcd_instances Hello 0
}
