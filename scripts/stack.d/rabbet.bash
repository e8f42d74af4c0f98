# Rabbet's own processes, and NGINX in front of them.
#
# Needs: root (of the repository), dir, the ports, process.bash, services.bash.

rabbet=$root/.rabbet/bin/rabbet

processes=(mail worker-1 worker-2 ingress-1 ingress-2 nginx)

build_rabbet() {
	say "building .rabbet/bin/rabbet"
	(cd "$root" && go build -o "$rabbet" ./runtime/cmd/rabbet) || die "the build failed: see the lines above"
}

# is_stale PART: whether that worker or ingress runs another binary than the
# present one. (What the mail catcher does hardly changes, and it would forget its mails.)
is_stale() {
	local pid
	[[ $1 == worker-* || $1 == ingress-* ]] && pid=$(pid_of "$1") && ! [ "/proc/$pid/exe" -ef "$rabbet" ]
}

# write_env: what every process of the stack has in common, and what you need
# to join it: . .rabbet/stack/env
write_env() {
	local cache_url
	case $cache in
	redis) cache_url=redis://127.0.0.1:$REDIS_PORT/0 ;;
	memcached) cache_url=memcached://127.0.0.1:$MEMCACHED_PORT ;;
	*) die "RABBET_STACK_CACHE=$cache cannot be used: choose redis or memcached" ;;
	esac
	cat >"$dir/env" <<-END
		export RABBET_BROKER_URL=amqp://rabbet:rabbet@127.0.0.1:$AMQP_PORT/
		export RABBET_CACHE_URL=$cache_url
		export RABBET_STATE_URL=redis://127.0.0.1:$STATE_PORT/0
		export RABBET_DATABASE_URL='postgres://rabbet:rabbet@127.0.0.1:$POSTGRES_PORT/postgres?sslmode=disable'
		export RABBET_SMTP_URL=\${RABBET_SMTP_URL:-'smtp://127.0.0.1:$SMTP_PORT?from=rabbet@localhost'}
		export RABBET_DIR='$dir'
	END
	# shellcheck source=/dev/null
	. "$dir/env"
}

start_mail() {
	launch mail env RABBET_SMTP_ADDR="127.0.0.1:$SMTP_PORT" RABBET_MAIL_ADDR="127.0.0.1:$MAIL_PORT" "$rabbet" mail
}
ready_mail() { [[ $(exchange "$SMTP_PORT" '') == 220* ]] && is_open "$MAIL_PORT"; }

worker() { launch "$1" env RABBET_PROCESS="$1" RABBET_ADMIN_ADDR="127.0.0.1:$2" "$rabbet" worker; }
start_worker_1() { worker worker-1 "$WORKER_1_ADMIN_PORT"; }
start_worker_2() { worker worker-2 "$WORKER_2_ADMIN_PORT"; }
ready_worker_1() { answers "$WORKER_1_ADMIN_PORT/readyz"; }
ready_worker_2() { answers "$WORKER_2_ADMIN_PORT/readyz"; }

ingress() {
	launch "$1" env RABBET_PROCESS="$1" RABBET_HTTP_ADDR="127.0.0.1:$2" RABBET_ADMIN_ADDR="127.0.0.1:$3" \
		RABBET_TRUSTED_PROXIES=127.0.0.1/32 "$rabbet" ingress
}
start_ingress_1() { ingress ingress-1 "$INGRESS_1_PORT" "$INGRESS_1_ADMIN_PORT"; }
start_ingress_2() { ingress ingress-2 "$INGRESS_2_PORT" "$INGRESS_2_ADMIN_PORT"; }
ready_ingress_1() { answers "$INGRESS_1_ADMIN_PORT/readyz" && is_open "$INGRESS_1_PORT"; }
ready_ingress_2() { answers "$INGRESS_2_ADMIN_PORT/readyz" && is_open "$INGRESS_2_PORT"; }

# As root, NGINX's workers stay root: another user may not be able to read the
# repository.
start_nginx() {
	local main='daemon off;'
	((EUID != 0)) || main+=' user root;'
	mkdir -p "$dir/nginx"
	sed -e "s|\${RABBET_NGINX_RUN}|$dir/nginx|" -e "s|\${RABBET_NGINX_SITE}|$root/infra/nginx/site|" \
		-e "s|\${RABBET_NGINX_LISTEN}|127.0.0.1:$HTTP_PORT|" \
		-e "s|\${RABBET_NGINX_INGRESS_1}|127.0.0.1:$INGRESS_1_PORT|" \
		-e "s|\${RABBET_NGINX_INGRESS_2}|127.0.0.1:$INGRESS_2_PORT|" \
		"$root/infra/nginx/nginx.conf.template" >"$dir/nginx/nginx.conf"
	launch nginx nginx -e stderr -p "$dir/nginx" -c "$dir/nginx/nginx.conf" -g "$main"
}
ready_nginx() { answers "$HTTP_PORT/index.html"; }

# answers PORT/PATH: whether a GET there succeeds.
answers() { curl -fsS -m 2 -o /dev/null "http://127.0.0.1:$1"; }

stop_processes() {
	halt QUIT 5 nginx # finishes what it has begun
	halt TERM 35 ingress-1 ingress-2
	halt TERM 35 worker-1 worker-2
	halt TERM 5 mail
}
