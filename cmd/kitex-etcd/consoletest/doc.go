// Package consoletest opens the page of kitex-etcd console in a real browser.
package consoletest
