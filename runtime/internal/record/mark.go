package record

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// controlSuffix keeps marks out of {prefix}/{service}/, where registry-etcd would take them for instances.
const controlSuffix = "-control"

// Mark is what an operator wants of one server. The zero value wants nothing.
type Mark struct {
	Drain  bool   // no client is to call it
	Weight int    // in place of the one it registered with; 0 means no other
	Reason string // for people
}

// markValue is the JSON of a Mark. It tells what is missing from what is false or 0. Weight is a float64 because encoders of
// other languages write 1 as 1.0.
type markValue struct {
	Drain  *bool    `json:"drain,omitempty"`
	Weight *float64 `json:"weight,omitempty"`
	Reason string   `json:"reason,omitempty"`
}

// MarkPrefix is what the keys of all marks below a prefix begin with.
func MarkPrefix(prefix string) string { return prefix + controlSuffix + "/" }

// ServiceMarkPrefix is what the keys of the marks of a service begin with.
func ServiceMarkPrefix(prefix, service string) string {
	return ServicePrefix(prefix+controlSuffix, service)
}

// MarkKey is the key of the mark of one instance: {prefix}-control/{service}/{host:port}.
func MarkKey(prefix, service, addr string) string { return Key(prefix+controlSuffix, service, addr) }

// SplitMarkKey is the reverse of MarkKey. The error says that key is not that of a mark.
func SplitMarkKey(prefix, key string) (service, addr string, err error) {
	service, addr, err = SplitKey(prefix+controlSuffix, key)
	if err != nil {
		return service, addr, errors.New("the key has more or fewer parts than {prefix}-control/{service}/{host:port}")
	}
	return service, addr, nil
}

// EncodeMark returns the value to write for m.
func EncodeMark(m Mark) (string, error) {
	v := markValue{Reason: m.Reason}
	if m.Drain || m.Weight == 0 {
		v.Drain = &m.Drain
	}
	if m.Weight != 0 {
		weight := float64(m.Weight)
		v.Weight = &weight
	}
	s, err := codec.MarshalToString(v)
	if err != nil {
		return "", fmt.Errorf("encode the mark: %w", err)
	}
	_, err = DecodeMark([]byte(s)) // what would be ignored is not written
	return s, err
}

// DecodeMark reads the value of a mark. Unknown fields are ignored, and null is as good as missing. A mark that says neither
// drain nor weight is an error: a word in it is misspelt.
func DecodeMark(value []byte) (Mark, error) {
	var v markValue
	if !utf8.Valid(value) {
		return Mark{}, errors.New("the mark is not UTF-8")
	}
	if err := codec.Unmarshal(value, &v); err != nil {
		return Mark{}, fmt.Errorf(`the mark is not JSON such as {"drain":true} or {"weight":1}: %s`, firstLine(err))
	}
	m := Mark{Reason: strings.TrimSpace(v.Reason)}
	switch {
	case v.Drain == nil && v.Weight == nil:
		return Mark{}, errors.New(`the mark says neither drain nor weight; write {"drain":true} or {"weight":1}`)
	case v.Weight == nil:
	case *v.Weight < 1 && *v.Weight >= 0:
		return Mark{}, fmt.Errorf(`the mark's weight is %v, which clients take for the default; write {"drain":true} to take the server out`, *v.Weight)
	case *v.Weight < 0 || *v.Weight > math.MaxInt32 || *v.Weight != math.Trunc(*v.Weight):
		return Mark{}, fmt.Errorf("the mark's weight is %v; it must be a whole number from 1 to %d", *v.Weight, math.MaxInt32)
	default:
		m.Weight = int(*v.Weight)
	}
	m.Drain = v.Drain != nil && *v.Drain
	return m, nil
}

// WithWeight returns the record in value with another weight. value is one that Encode wrote.
func WithWeight(value string, weight int) (string, error) {
	r, err := Decode([]byte(value), DefaultWeight)
	if err != nil {
		return "", err
	}
	r.Weight = float64(weight)
	return Encode(&r)
}
