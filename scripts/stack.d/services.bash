# RabbitMQ, Redis, Memcached and PostgreSQL: for each how it starts and how it
# shows that it is ready. Their settings are in infra/.
#
# Needs: root (of the repository), dir, the ports, process.bash.

services=(epmd rabbitmq redis memcached postgres)

need_services() {
	need rabbitmq-server=/usr/lib/rabbitmq/bin/rabbitmq-server redis-server=redis-server \
		memcached=memcached postgresql='/usr/lib/postgresql/*/bin/postgres' curl=curl
}

# Erlang's name server, which RabbitMQ would otherwise start for the whole
# machine and leave running.
start_epmd() { launch epmd env ERL_EPMD_ADDRESS=127.0.0.1 epmd -port "$EPMD_PORT"; }
ready_epmd() { is_open "$EPMD_PORT"; }

# RABBITMQ_ALLOW_INPUT makes the script become the server instead of its
# parent; -noinput takes the shell away that comes with it.
start_rabbitmq() {
	local home=$dir/rabbitmq
	mkdir -p "$home/conf.d"
	cat >"$home/conf.d/10-ports.conf" <<-END
		listeners.tcp.1 = 127.0.0.1:$AMQP_PORT
		management.tcp.ip = 127.0.0.1
		management.tcp.port = $MANAGEMENT_PORT
		prometheus.tcp.ip = 127.0.0.1
		prometheus.tcp.port = $PROMETHEUS_PORT
	END
	launch rabbitmq env -C "$home" HOME="$home" LC_ALL=C.UTF-8 \
		ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 \
		RABBITMQ_CONF_ENV_FILE="$home/none" RABBITMQ_ALLOW_INPUT=1 \
		RABBITMQ_NODENAME=rabbet@localhost RABBITMQ_DIST_PORT="$DIST_PORT" \
		RABBITMQ_CONFIG_FILE="$root/infra/rabbitmq/rabbitmq.conf" RABBITMQ_CONFIG_FILES="$home/conf.d" \
		RABBITMQ_ENABLED_PLUGINS_FILE="$root/infra/rabbitmq/enabled_plugins" \
		RABBITMQ_MNESIA_BASE="$home/data" RABBITMQ_LOG_BASE="$home/log" RABBITMQ_PID_FILE="$home/pid" \
		RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-noinput -kernel inet_dist_use_interface {127,0,0,1}' \
		/usr/lib/rabbitmq/bin/rabbitmq-server
}
ready_rabbitmq() {
	curl -fsS -m 2 -u rabbet:rabbet "http://127.0.0.1:$MANAGEMENT_PORT/api/health/checks/virtual-hosts" &&
		is_open "$AMQP_PORT"
}

start_redis() {
	mkdir -p "$dir/redis"
	launch redis redis-server "$root/infra/redis/redis.conf" --bind 127.0.0.1 --port "$REDIS_PORT" --dir "$dir/redis"
}
ready_redis() { [[ $(exchange "$REDIS_PORT" 'PING\r\n') == +PONG* ]]; }

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
	halt TERM 20 rabbitmq redis memcached
	halt INT 20 postgres # its fast shutdown: clients are sent away
	halt TERM 5 epmd
}

# discard_services: for those whose data nobody wants, without a goodbye.
discard_services() {
	local moved
	halt KILL 5 rabbitmq redis memcached epmd
	halt QUIT 5 postgres # its immediate shutdown: takes its children along
	moved=$(cat "$dir/postgres/moved-to" 2>/dev/null) && rm -rf "$moved"
	rm -rf "$dir"
}
