package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// settings come from the environment; scripts/bench fills in the services.
type settings struct {
	rounds  int           // BENCH_ROUNDS, at least 1; 9
	seconds time.Duration // BENCH_SECONDS of one measurement; 1
	only    string        // BENCH_ONLY: just the cases whose name contains it
	at      int           // BENCH_AT: just this many at once; 0 is all

	amqp, redis, memcached string
	services               string // folder of scripts/stack services: pids
	rabbet                 string // the rabbet binary
}

func readSettings() (settings, error) {
	s := settings{
		only: os.Getenv("BENCH_ONLY"),
		amqp: os.Getenv("RABBET_TEST_AMQP_URL"), redis: os.Getenv("RABBET_TEST_REDIS_URL"),
		memcached: os.Getenv("RABBET_TEST_MEMCACHED_URL"),
		services:  os.Getenv("RABBET_STACK_DIR"), rabbet: os.Getenv("BENCH_RABBET"),
	}
	if s.amqp == "" || s.redis == "" || s.memcached == "" || s.services == "" || s.rabbet == "" {
		return s, fmt.Errorf("no services: start it with scripts/bench")
	}
	var err error
	if s.rounds, err = number("BENCH_ROUNDS", 9); err != nil {
		return s, err
	}
	if s.at, err = number("BENCH_AT", 0); err != nil {
		return s, err
	}
	seconds, err := number("BENCH_SECONDS", 1)
	s.seconds = time.Duration(seconds) * time.Second
	return s, err
}

func number(variable string, fallback int) (int, error) {
	value := os.Getenv(variable)
	if value == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s=%q cannot be used: write a whole number from 1", variable, value)
	}
	return n, nil
}

func (s settings) wants(name string) bool { return strings.Contains(name, s.only) }
