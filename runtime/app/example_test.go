package app_test

import (
	"context"

	"github.com/rabbet-fn/rabbet/runtime/app"
	"github.com/rabbet-fn/rabbet/runtime/database"
	"github.com/rabbet-fn/rabbet/runtime/faas"
)

// shopDeps is what the functions of a shop may use.
type shopDeps struct {
	Bus faas.Bus
	DB  *database.DB
}

// shopSettings are the shop's own environment variables.
type shopSettings struct {
	DatabaseURL string `env:"SHOP_DATABASE_URL" envDefault:"sqlite://shop.db" doc:"where orders are kept"`
}

// The main function of a product is app.Main(product).
func ExampleProduct() {
	var functions faas.Set[shopDeps] // each file of package functions registers one
	product := app.Product[shopDeps]{
		Functions: &functions,
		Settings:  shopSettings{},
		Open: func(ctx context.Context, host app.Host) (opened app.Opened[shopDeps], err error) {
			var s shopSettings
			if err := app.ReadSettings(&s); err != nil {
				return opened, err
			}
			db, err := database.Open(s.DatabaseURL)
			if err != nil {
				return opened, app.BadSetting("SHOP_DATABASE_URL", s.DatabaseURL, "%v", err)
			}
			return app.Opened[shopDeps]{
				Deps:  shopDeps{Bus: host.Bus, DB: db},
				Ready: db.PingContext,
				Close: db.Close,
			}, nil
		},
	}
	app.Main(product)
}
