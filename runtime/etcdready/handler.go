// Package etcdready answers readiness probes: are the servers of this process registered in etcd?
//
//	http.Handle("/ready", etcdready.Handler(conn))
//
// It is a separate package so that package etcd needs no HTTP.
package etcdready

import (
	"fmt"
	"net/http"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// Handler returns a handler that answers 503 if conn has no record, if a record is lost or not yet written, or if another process has
// taken its address. Otherwise it answers 200. The body has a line for each record: its state and its key.
//
// It also answers 200 for records that an operator drained, and for records whose state is unknown because etcd has not confirmed their
// lease for a TTL. When etcd is down, all servers of the fleet are unknown, and serve on; if all became unready at once, an
// orchestrator would send no traffic to any of them. If you want something else, use Conn.Registered.
//
// It reads memory: it does not ask etcd, and does not wait. Do not use it for a liveness probe: a restart does not bring etcd back.
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
