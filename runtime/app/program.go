package app

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"github.com/rabbet-fn/rabbet/runtime/app/internal/config"
	"github.com/rabbet-fn/rabbet/runtime/app/internal/dev"
	"github.com/rabbet-fn/rabbet/runtime/contract"
)

// A program is a Product without its type parameter.
type program struct {
	functions []contract.Descriptor
	invalid   error // why the functions cannot run as they are registered
	settings  any   // nil for none
	try       dev.Try
	// open opens the dependencies, and binds the named functions to them; all
	// without names.
	open func(ctx context.Context, host Host, names []string) (*opened, error)
}

// opened is an Opened whose fields are all set, and the functions bound to it.
type opened struct {
	functions []contract.Function
	ready     func(ctx context.Context) error
	run       func(ctx context.Context)
	close     func() error
}

func programOf[D any](p Product[D]) *program {
	return &program{
		functions: p.Functions.Descriptors(),
		invalid:   p.Functions.Err(),
		settings:  p.Settings,
		try:       p.Try,
		open: func(ctx context.Context, host Host, names []string) (*opened, error) {
			var o Opened[D]
			if p.Open != nil {
				var err error
				if o, err = p.Open(ctx, host); err != nil {
					return nil, err
				}
			}
			bound := &opened{ready: o.Ready, run: o.Run, close: o.Close}
			if bound.ready == nil {
				bound.ready = func(context.Context) error { return nil }
			}
			if bound.run == nil {
				bound.run = func(context.Context) {}
			}
			if bound.close == nil {
				bound.close = func() error { return nil }
			}
			var err error
			if bound.functions, err = p.Functions.With(&o.Deps, names...); err != nil {
				err = config.Unusable(config.Prefix+"FUNCTIONS", strings.Join(names, ","), "%v; 'rabbet functions' lists what is live", err)
				return nil, errors.Join(err, bound.close())
			}
			return bound, nil
		},
	}
}

// checkSettings reports a setting of the product that cannot be read.
func (p *program) checkSettings() error {
	if p.settings == nil {
		return nil
	}
	t := reflect.TypeOf(p.settings)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return ReadSettings(reflect.New(t).Interface())
}
