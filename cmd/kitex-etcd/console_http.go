package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// The page, without anything that has to be built or downloaded.
//
//go:embed page
var pageFiles embed.FS

const (
	// tokenHeader carries the token without which nothing is written: another site's script cannot read it.
	tokenHeader = "X-Kitex-Etcd-Token"
	// writeTimeout is how long a browser may take to read one message.
	writeTimeout = 10 * time.Second
	// aliveEvery is between two signs of life on a stream that has nothing to say.
	aliveEvery = 15 * time.Second
	// leasesTimeout bounds a request about leases; those that etcd is late with are left out.
	leasesTimeout = time.Second
	// maxBody bounds what a request for a change may hold.
	maxBody = 64 << 10
)

// consoleHandler serves the page and its API, to browsers that came by an address of this host.
type consoleHandler struct {
	*http.ServeMux
	program *program
	conn    *etcd.Conn
	hub     *hub
	leases  *leaseBook
	hosts   []string
	token   string
	write   bool // changes are allowed
}

func newConsoleHandler(p *program, conn *etcd.Conn, hub *hub, writable bool, hosts []string) *consoleHandler {
	h := &consoleHandler{
		ServeMux: http.NewServeMux(), program: p, conn: conn, hub: hub, leases: newLeaseBook(conn), hosts: hosts, token: rand.Text(), write: writable,
	}
	files, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the directory is part of the program
	}
	static := http.FileServerFS(files)
	h.HandleFunc("GET /{$}", h.page)
	for _, name := range []string{"app.js", "style.css", "icon.svg"} {
		h.Handle("GET /"+name, static)
	}
	h.HandleFunc("GET /api/state", h.state)
	h.HandleFunc("GET /api/events", h.events)
	h.HandleFunc("GET /api/leases", h.askLeases)
	for name, change := range map[string]func(context.Context, operation, changeRequest) error{
		"drain": func(ctx context.Context, o operation, r changeRequest) error {
			return o.drain(ctx, r.marking())
		},
		"undrain": func(ctx context.Context, o operation, _ changeRequest) error {
			return o.undrain(ctx)
		},
		"weight": func(ctx context.Context, o operation, r changeRequest) error {
			switch {
			case r.Weight == 0:
				return o.unweigh(ctx)
			case r.Weight < 0 || r.Weight > math.MaxInt32:
				return fmt.Errorf("weight %d: it has to be from 1 to %d, or 0 for the server's own weight", r.Weight, math.MaxInt32)
			}
			return o.weigh(ctx, r.marking(), r.Weight)
		},
	} {
		h.HandleFunc("POST /api/"+name, func(w http.ResponseWriter, r *http.Request) { h.change(w, r, change) })
	}
	return h
}

// ServeHTTP refuses what a page of another site could have a browser ask, and what came by a name that is not ours: such a name can
// be made to point here.
func (h *consoleHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	if !h.isHost(r.Host) {
		refuse(w, http.StatusForbidden, fmt.Sprintf("the console does not answer to the host %q: open it by an IP address or localhost, or start it with --host", r.Host))
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host {
		refuse(w, http.StatusForbidden, fmt.Sprintf("a page of %q may not use the console", origin))
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" && r.URL.Path != "/" {
		refuse(w, http.StatusForbidden, "a page of another site may not use the console")
		return
	}
	h.ServeMux.ServeHTTP(w, r)
}

// isHost says whether a Host header is an IP address, localhost or a name that was given.
func (h *consoleHandler) isHost(host string) bool {
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	name = strings.ToLower(strings.TrimSuffix(strings.Trim(name, "[]"), "."))
	return name == "localhost" || net.ParseIP(name) != nil || slices.ContainsFunc(h.hosts, func(given string) bool { return strings.EqualFold(given, name) })
}

// refuse answers a request that is not carried out, in words.
func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

// page is the page itself. The token is in it, which other sites cannot read.
func (h *consoleHandler) page(w http.ResponseWriter, _ *http.Request) {
	content, err := pageFiles.ReadFile("page/index.html")
	if err != nil {
		panic(err) // it is part of the program
	}
	token := ""
	if h.write {
		token = h.token
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(bytes.Replace(content, []byte("{{token}}"), []byte(token), 1))
}

// state is everything at one moment.
func (h *consoleHandler) state(w http.ResponseWriter, _ *http.Request) {
	var text []byte
	h.hub.do(func() { text = h.hub.stateText() })
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}

// events is each change, as server-sent events.
func (h *consoleHandler) events(w http.ResponseWriter, r *http.Request) {
	p := h.hub.open()
	if p == nil {
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d pages are open, and more are not allowed", maxPages))
		return
	}
	defer h.hub.close(p)
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{})
	alive := time.NewTicker(aliveEvery)
	defer alive.Stop()
	for {
		var m []byte
		var more bool
		select {
		case m, more = <-p.messages:
			if !more {
				return // too far behind: the browser asks again
			}
		case <-alive.C:
			m = []byte(": still there\n\n")
		case <-r.Context().Done():
			return
		}
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := w.Write(m); err != nil {
			return
		}
		if out.Flush() != nil {
			return
		}
	}
}

// askLeases answers how long leases have left.
func (h *consoleHandler) askLeases(w http.ResponseWriter, r *http.Request) {
	var ids []clientv3.LeaseID
	for _, text := range r.URL.Query()["id"] {
		id, err := strconv.ParseInt(text, 16, 64)
		if err != nil {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("the lease %q is not a hexadecimal number", text))
			return
		}
		ids = append(ids, clientv3.LeaseID(id))
	}
	if len(ids) > maxAsked {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("%d leases are more than the %d that one request may ask for", len(ids), maxAsked))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), leasesTimeout)
	defer cancel()
	type left struct {
		TTL     int64 `json:"ttl"` // seconds
		Granted int64 `json:"granted"`
	}
	answers := make(map[string]left)
	for id, a := range h.leases.of(ctx, h.hub.known(ids)) {
		if a.err == nil {
			answers[leaseName(id)] = left{a.ttl, a.granted}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answers)
}

// changeRequest is the body of a request that changes a mark.
type changeRequest struct {
	Service string `json:"service"`
	Address string `json:"address"`
	Weight  int    `json:"weight"`
	For     string `json:"for"` // as --for; empty: until it is undone
	Reason  string `json:"reason"`
	Force   bool   `json:"force"` // drain the last one, too

	while time.Duration
}

func (r changeRequest) marking() marking {
	return marking{force: r.Force, while: r.while, reason: r.Reason}
}

// change writes a mark, as the command of the same name does, and answers when the server has followed.
func (h *consoleHandler) change(w http.ResponseWriter, r *http.Request, change func(context.Context, operation, changeRequest) error) {
	switch {
	case !h.write:
		refuse(w, http.StatusForbidden, "the console only shows: start it with --write to change something")
		return
	case subtle.ConstantTimeCompare([]byte(r.Header.Get(tokenHeader)), []byte(h.token)) != 1:
		refuse(w, http.StatusForbidden, "the token is missing or that of an earlier console: load the page again")
		return
	}
	var req changeRequest
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	err := body.Decode(&req)
	if err == nil && req.For != "" {
		req.while, err = time.ParseDuration(req.For)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("%v: the request cannot be read", err))
		return
	}
	var told bytes.Buffer
	quiet := &program{stdout: new(bytes.Buffer), stderr: &told, connection: h.program.connection, output: "json"}
	if err := change(r.Context(), operation{quiet, h.conn, req.Service, req.Address}, req); err != nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": err.Error(), "last": errors.Is(err, errLast)})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"told": strings.ReplaceAll(told.String(), "kitex-etcd: ", "")})
}
