package main

import (
	api "github.com/kitex-contrib/kitex-etcd/golden/flag_use/kitex_gen/one/api/hello"
	"log"
)

func main() {
	svr := api.NewServer(new(HelloImpl))

	err := svr.Run()

	if err != nil {
		log.Println(err.Error())
	}
}
