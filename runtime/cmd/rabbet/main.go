// Command rabbet runs the functions of this repository.
package main

import (
	"github.com/rabbet-fn/rabbet/functions"
	"github.com/rabbet-fn/rabbet/runtime/app"
)

func main() { app.Main(functions.Product) }
