# RabbitMQ, Redis, Memcached and PostgreSQL: for each how it starts and how it
# shows that it is ready. Their settings are in infra/.
#
# Needs: root (of the repository), dir, the ports, process.bash.

services=(epmd rabbitmq redis state memcached postgres)

need_services() {
	need rabbitmq-server=/usr/lib/rabbitmq/bin/rabbitmq-server redis-server=redis-server \
		memcached=memcached postgresql='/usr/lib/postgresql/*/bin/postgres' curl=curl
}

rabbitmq_node=$root/scripts/stack.d/rabbitmq-node

start_epmd() { launch epmd "$rabbitmq_node" epmd "$EPMD_PORT"; }
ready_epmd() { is_open "$EPMD_PORT"; }

start_rabbitmq() {
	local home=$dir/rabbitmq
	mkdir -p "$home/conf.d"
	cp "$root/infra/rabbitmq/enabled_plugins" "$home"
	cat >"$home/conf.d/20-prometheus.conf" <<-END
		prometheus.tcp.ip = 127.0.0.1
		prometheus.tcp.port = $PROMETHEUS_PORT
	END
	launch rabbitmq "$rabbitmq_node" start "$home" "$AMQP_PORT" "$MANAGEMENT_PORT" "$DIST_PORT" "$EPMD_PORT"
}
ready_rabbitmq() {
	curl -fsS -m 2 -u rabbet:rabbet "http://127.0.0.1:$MANAGEMENT_PORT/api/health/checks/virtual-hosts" &&
		is_open "$AMQP_PORT"
}

# redis PART CONF PORT: two parts are a Redis.
redis() {
	mkdir -p "$dir/$1"
	launch "$1" redis-server "$root/infra/redis/$2" --bind 127.0.0.1 --port "$3" --dir "$dir/$1"
}
start_redis() { redis redis redis.conf "$REDIS_PORT"; }
start_state() { redis state state.conf "$STATE_PORT"; }
ready_redis() { [[ $(exchange "$REDIS_PORT" 'PING\r\n') == +PONG* ]]; }
ready_state() { [[ $(exchange "$STATE_PORT" 'PING\r\n') == +PONG* ]]; }

start_memcached() {
	local options
	mapfile -t options < <(grep -v '^#' "$root/infra/memcached/memcached.conf" | xargs -n1)
	((EUID != 0)) || options+=(-u nobody) # it refuses to run as root
	launch memcached memcached "${options[@]}" -l 127.0.0.1 -p "$MEMCACHED_PORT"
}
ready_memcached() { [[ $(exchange "$MEMCACHED_PORT" 'version\r\n') == VERSION* ]]; }

# PostgreSQL refuses to run as root: then it runs as the user of Debian's
# package, and its data moves if that user cannot reach our folder.
start_postgres() {
	local bin password data=$dir/postgres as=()
	bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
	mkdir -p "$data"
	if ((EUID == 0)); then
		as=(setpriv --reuid=postgres --regid=postgres --init-groups --)
		if ! "${as[@]}" test -x "$data"; then
			data=/var/tmp/rabbet-postgres-$(cksum <<<"$dir" | cut -d' ' -f1)
			mkdir -p "$data"
			echo "$data" >"$dir/postgres/moved-to"
		fi
		chown postgres: "$data"
	fi
	chmod 700 "$data"
	if ! [ -e "$data/PG_VERSION" ]; then
		password=$(mktemp) # where that other user can read it, too
		echo rabbet >"$password"
		chmod 644 "$password"
		"${as[@]}" env -C / "$bin/initdb" --pgdata="$data" --username=rabbet --pwfile="$password" --auth=scram-sha-256 \
			--encoding=UTF8 --locale=C.UTF-8 --no-sync >"$(log_of initdb)" 2>&1 ||
			explain initdb "failed"
		rm "$password"
	fi
	launch postgres "${as[@]}" env -C / "$bin/postgres" -D "$data" -h 127.0.0.1 -p "$POSTGRES_PORT" -k ''
}
ready_postgres() {
	psql "postgres://rabbet:rabbet@127.0.0.1:$POSTGRES_PORT/postgres" -XAtqc 'select 1' </dev/null
}

# wait_services PART…: until each of them is ready.
wait_services() {
	local part
	for part in "$@"; do
		wait_ready "$part" 60
		say "$part is ready"
	done
}

stop_services() {
	halt TERM 20 rabbitmq redis state memcached
	halt INT 20 postgres # its fast shutdown: clients are sent away
	halt TERM 5 epmd
}

# discard_services: for those whose data nobody wants, without a goodbye.
discard_services() {
	local moved
	halt KILL 5 rabbitmq redis state memcached epmd
	halt QUIT 5 postgres # its immediate shutdown: takes its children along
	moved=$(cat "$dir/postgres/moved-to" 2>/dev/null) && rm -rf "$moved"
	rm -rf "$dir"
}
