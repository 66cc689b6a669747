// A small HTTP server that restarts itself with tableflip on SIGHUP, as the documentation of
// that package shows.
//
//	flip FILE    the addresses to serve, one a line; each process reads them anew
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cloudflare/tableflip"
)

func hello(answer http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(answer, "pid=%d\n", os.Getpid())
}

func upgradeWhenTold(upgrader *tableflip.Upgrader) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP)
	for range told {
		// Not in turn: a second signal is to find the first upgrade under way.
		go func() {
			if err := upgrader.Upgrade(); err != nil {
				log.Println("upgrade failed:", err)
			}
		}()
	}
}

// What hang.c does for servers in C.
func hangIfTold() {
	if _, err := os.Stat(os.Getenv("FAILURES_HANG")); err == nil {
		select {}
	}
}

func main() {
	upgrader, err := tableflip.New(tableflip.Options{})
	if err != nil {
		log.Fatalln(err)
	}
	go upgradeWhenTold(upgrader)

	addresses, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatalln(err)
	}
	var listeners []net.Listener
	for _, address := range strings.Fields(string(addresses)) {
		listener, err := upgrader.Listen("tcp", address)
		if err != nil {
			log.Fatalln(err)
		}
		listeners = append(listeners, listener)
	}
	hangIfTold()
	server := http.Server{Handler: http.HandlerFunc(hello)}
	for _, listener := range listeners {
		go server.Serve(listener)
	}
	if err := upgrader.Ready(); err != nil {
		log.Fatalln(err)
	}
	<-upgrader.Exit()
	server.Shutdown(context.Background())
}
