package link

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is an error of etcd, or of the way to it, in words: the cause first, without the shells that gRPC puts around it.
type failure struct {
	text   string
	advice string // what to do about it
	err    error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// Explain puts err in words. Where err says no more than that time was up, the words are why etcd was not reached.
func (l *Link) Explain(err error) error {
	var known *failure
	if err == nil || errors.As(err, &known) || errors.Is(err, ErrClosed) {
		return err
	}
	l.mu.Lock()
	trouble := l.trouble
	l.mu.Unlock()
	telling := err
	if l.cfg.Client != nil && l.cfg.Client.Ctx().Err() != nil {
		telling = errClientClosed
	} else if timeIsUp := errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded; timeIsUp && trouble != nil {
		telling = trouble
	}
	text := words(telling)
	f := &failure{text, "", err}
	for _, c := range causes {
		if strings.Contains(text, c.says) {
			if c.cause != "" {
				f.text = c.cause + " (" + text + ")"
			}
			f.advice = c.advice
			return f
		}
	}
	f.advice = "see what etcd logs about it"
	return f
}

var errClientClosed = errors.New("the client connection is closing")

// Advice returns what to do about an error that Explain has put in words; empty for others.
func Advice(err error) string {
	var f *failure
	if !errors.As(err, &f) {
		return ""
	}
	return f.advice
}

// shells are what gRPC and the etcd client put around what went wrong.
var shells = regexp.MustCompile(`^(rpc error: code = \w+ desc = |context deadline exceeded: |connection error: desc = |transport: |Error while dialing: |authentication handshake failed: |etcdserver: |etcdclient: |latest balancer error: )`)

// words returns what err says without its shells and quotes.
func words(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ") // on one line
	for {
		bare := strings.Trim(shells.ReplaceAllString(text, ""), `"`)
		if bare == text {
			return text
		}
		text = bare
	}
}

// causes are the errors that are met in the field: by what they say, their cause in plain words where they do not say it
// themselves, and what to do. The first that fits counts.
var causes = []struct{ says, cause, advice string }{
	{"the function given to WithAuthFunc", "", "have it return a user and a password"},
	{"connection refused", "", "check that etcd is up and that the endpoints are right"},
	{"no such host", "", "check the host name in the endpoints"},
	{"no route to host", "", "check the network between this host and etcd"},
	{"network is unreachable", "", "check the network between this host and etcd"},
	{"remote error: tls: unknown certificate authority", "etcd does not trust this process's certificate", "give WithTLSOpt a certificate and key that etcd trusts"},
	{"tls: certificate required", "etcd asks for a client certificate", "give WithTLSOpt a certificate and key that etcd trusts"},
	{"use of closed network connection", "etcd did not answer in time", "check the way to etcd, and its load"}, // gRPC's time was up
	{"error reading server preface", "etcd closed the connection before it said anything",
		"etcd may serve TLS alone: give WithTLSOpt or WithTLSConfig"},
	{"first record does not look like a TLS handshake", "etcd does not speak TLS at this address",
		"leave TLS out, or name the address at which etcd serves TLS"},
	{"certificate signed by unknown authority", "", "give WithTLSOpt the authority that signed etcd's certificate"},
	{"certificate is valid for", "", "use a name or address that etcd's certificate has, or have etcd's certificate name this one"},
	{"cannot validate certificate", "", "use a name or address that etcd's certificate has, or have etcd's certificate name this one"},
	{"certificate has expired", "", "renew the certificate that is meant, etcd's or this process's"},
	{"tls: bad certificate", "etcd refused this process's certificate", "give WithTLSOpt a certificate and key that etcd trusts"},
	{"tls: unknown certificate", "etcd refused this process's certificate", "give WithTLSOpt a certificate and key that etcd trusts"},
	{"broken pipe", "etcd ended the connection", "etcd may ask for a client certificate that it trusts: give one to WithTLSOpt"},
	{"connection reset by peer", "etcd, or something before it, ended the connection", "see what etcd logs about it; it may ask for TLS, or for a client certificate"},
	{"permission denied", "the user's role in etcd is too small",
		"grant it: servers need readwrite, clients read, on the prefix of the service's keys, operators readwrite on that of the marks (docs/compatibility.md)"},
	{"user name is empty", "etcd asks for a user, and none was given", "give WithAuthOpt or WithAuthFunc"},
	{"authentication failed", "etcd refused user and password", "check the credentials; where they change, give them by WithAuthFunc"},
	{"authentication is not enabled", "", "leave the credentials out, or enable authentication in etcd"},
	{"database space exceeded", "etcd's database is full", "compact and defragment it, then run etcdctl alarm disarm"},
	{"request is too large", "", "make the record smaller, its tags above all, or raise etcd's --max-request-bytes"},
	{"larger than max", "the record is larger than the etcd client sends", "make the record smaller, its tags above all, or raise EtcdConfig.MaxCallSendMsgSize"},
	{"no leader", "this member of etcd has lost the others", "check etcd's cluster"},
	{"too many requests", "etcd is overloaded", "check etcd's load"},
	{"client connection is closing", "the etcd client was closed", "leave the client that was given to WithClient open for as long as its Conn"},
	{"context canceled", "the etcd client was closed, or the caller left", "leave the client that was given to WithClient open for as long as its Conn"},
	{"deadline exceeded", "etcd did not answer in time", "check the way to etcd, and its load"},
	{"timed out", "", "check the network between this host and etcd"},
	{"timeout", "", "check the network between this host and etcd"},
}

// Failed returns the error of something that was attempted, for users: the cause, the attempt, and what to do.
func Failed(cause error, attempt string, advice ...string) error {
	if own := Advice(cause); own != "" {
		advice = append([]string{own}, advice...)
	}
	if len(advice) == 0 {
		return fmt.Errorf("etcd: %w: %s", cause, attempt)
	}
	return fmt.Errorf("etcd: %w: %s; %s", cause, attempt, strings.Join(advice, "; "))
}
