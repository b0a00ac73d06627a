// A server with Go's net/http.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "pid=%d", os.Getpid())
	})
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
