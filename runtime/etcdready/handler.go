// Package etcdready answers readiness probes: are the servers of this process registered in etcd?
//
//	http.Handle("/ready", etcdready.Handler(conn))
//
// It is a package of its own so that package etcd needs no HTTP.
package etcdready

import (
	"fmt"
	"net/http"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// Handler answers 200 when every record that the servers of conn registered is as it should be, and 503 when there is none, when
// one is lost or not yet written, or when another process has taken its address. The body has a line for each record: its state
// and its key.
//
// A record that an operator drained is as it should be. So is one whose state is unknown, because etcd has not confirmed its
// lease for a TTL: during an outage of etcd that is every server of the fleet, and all of them serve on; if all were unready at
// once, an orchestrator would send no traffic to any. Those who want it otherwise read Conn.Registered.
//
// It reads memory: it does not ask etcd, and never waits. Do not use it as a liveness probe: a restart does not bring etcd back.
func Handler(conn *etcd.Conn) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		records := conn.Registered()
		code := http.StatusOK
		if len(records) == 0 {
			code = http.StatusServiceUnavailable
		}
		for _, r := range records {
			if r.State == etcd.StateLost || r.State == etcd.StateTaken {
				code = http.StatusServiceUnavailable
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		if len(records) == 0 {
			fmt.Fprintln(w, "nothing is registered")
		}
		for _, r := range records {
			fmt.Fprintln(w, r.State, r.Key)
		}
	})
}
