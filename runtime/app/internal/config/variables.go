package config

import (
	"fmt"
	"iter"
	"net/url"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
)

// Prefix is what the names of Rabbet's own variables begin with.
const Prefix = "RABBET_"

// Parse fills settings, a pointer to a struct with the tags env, envDefault and
// doc, from the environment. The names in the tags follow prefix. If settings has
// a method Validate() error, Parse calls it. An error names the variable.
func Parse(settings any, prefix string) error {
	if err := env.ParseWithOptions(settings, env.Options{Prefix: prefix}); err != nil {
		for v := range Variables(settings, prefix) {
			if value := os.Getenv(v.Name); value != "" && strings.Contains(err.Error(), fmt.Sprintf("%q", v.Field)) {
				return Unusable(v.Name, value, "write it as %s", v.form)
			}
		}
		return err
	}
	if v, ok := settings.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

// A Variable is one environment variable, as a field of a settings struct
// describes it.
type Variable struct {
	Name    string // in the environment
	Field   string // of the struct
	Default string // "" for none
	Doc     string // one sentence for 'rabbet help env'
	form    string // how a value is written
}

// Variables yields a Variable for each field of settings, a struct or a pointer
// to one.
func Variables(settings any, prefix string) iter.Seq[Variable] {
	t := reflect.TypeOf(settings)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return func(yield func(Variable) bool) {
		for _, f := range reflect.VisibleFields(t) {
			v := Variable{
				Name: prefix + f.Tag.Get("env"), Field: f.Name,
				Default: f.Tag.Get("envDefault"), Doc: f.Tag.Get("doc"), form: forms[f.Type],
			}
			if !yield(v) {
				return
			}
		}
	}
}

// forms say how a value of a type is written.
var forms = map[reflect.Type]string{
	reflect.TypeFor[time.Duration](): "a duration such as 25s",
	reflect.TypeFor[bool]():          "true or false",
	reflect.TypeFor[uint16]():        "a whole number from 0 to 65535",
	reflect.TypeFor[int]():           "a whole number",
	reflect.TypeFor[*bool]():         "true or false",
}

// An UnusableError reports an environment variable whose value cannot be used.
type UnusableError struct {
	Variable string
	Value    string // without any password
	Fix      string // what is wrong, and what to write instead
}

func (e *UnusableError) Error() string {
	return fmt.Sprintf("%s=%q cannot be used: %s", e.Variable, e.Value, e.Fix)
}

// Unusable returns an UnusableError of one line. It removes passwords from value.
func Unusable(variable, value, fix string, a ...any) error {
	oneLine := strings.Join(strings.FieldsFunc(fmt.Sprintf(fix, a...), func(r rune) bool { return r == '\n' || r == '\t' }), " ")
	return &UnusableError{variable, redact(value), oneLine}
}

// redact hides what may be a password in a list of URLs, even if they cannot be
// parsed.
func redact(value string) string {
	parts := strings.Split(value, ",")
	for i, part := range parts {
		if u, err := url.Parse(part); err == nil {
			if _, secret := u.User.Password(); secret {
				parts[i] = u.Redacted()
			}
		} else if scheme, rest, ok := strings.Cut(part, "://"); ok {
			if at := strings.LastIndex(rest, "@"); at >= 0 {
				parts[i] = scheme + "://xxxxx" + rest[at:]
			}
		}
	}
	return strings.Join(parts, ",")
}
