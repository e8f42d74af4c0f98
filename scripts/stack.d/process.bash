# Processes that outlive the script: each runs in a session of its own and is
# known by its pid together with its start time, so that a pid that the kernel
# has given to another process since is never taken for ours.
#
# Needs: dir (data folder), die, say.

log_of() { echo "$dir/log/$1.log"; }

# start_time PID: when it started, in clock ticks since boot; fails if it is gone or a zombie.
start_time() {
	local stat
	{ read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
	stat=${stat##*) } # the name before may hold anything
	# shellcheck disable=SC2086 # split into fields: state is the 1st, starttime the 20th
	set -- $stat
	[ "$1" != Z ] && echo "${20}"
}

# pid_of PART: prints its pid if it is running.
pid_of() {
	local pid started
	{ read -r pid started <"$dir/run/$1.pid"; } 2>/dev/null || return 1
	[ "$(start_time "$pid")" = "$started" ] && echo "$pid"
}

# launch PART COMMAND…: starts it, detached, with its output in its log.
launch() {
	local part=$1 pid
	shift
	mv -f "$(log_of "$part")" "$(log_of "$part").old" 2>/dev/null || true
	setsid "$@" </dev/null >"$(log_of "$part")" 2>&1 9>&- &
	pid=$!
	echo "$pid $(start_time "$pid")" >"$dir/run/$part.pid"
}

# wait_ready PART SECONDS: until ready_PART succeeds, or explains why it does not come up.
wait_ready() {
	local part=$1 deadline=$((SECONDS + $2))
	until "ready_${part//-/_}" >/dev/null 2>&1; do
		pid_of "$part" >/dev/null || explain "$part" "stopped before it was ready"
		((SECONDS < deadline)) || explain "$part" "is not ready after $2 s"
		sleep 0.1
	done
}

# explain PART WHAT: shows the end of its log, and gives up.
explain() {
	local log
	log=$(log_of "$1")
	{
		echo
		echo "$1 $2. The last lines of $log:"
		tail -n 15 "$log" | sed 's/^/    /'
	} >&2
	die "mend what the log says, then run scripts/stack again (scripts/stack down stops the rest)"
}

# halt SIGNAL SECONDS PART…: asks them all to stop, and kills those that do not in time.
halt() {
	local signal=$1 deadline=$((SECONDS + $2)) part pid
	shift 2
	for part in "$@"; do
		! pid=$(pid_of "$part") || kill -s "$signal" "$pid" 2>/dev/null || true
	done
	for part in "$@"; do
		while pid=$(pid_of "$part"); do
			if ((SECONDS >= deadline)); then
				say "$part does not stop: killed"
				kill -s KILL -- "-$pid" 2>/dev/null || true
			fi
			sleep 0.05
		done
		rm -f "$dir/run/$part.pid"
	done
}

# is_open PORT: whether something listens there on this machine.
is_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# exchange PORT TEXT: sends TEXT and prints the first line of the answer.
exchange() {
	local line
	exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
	printf '%b' "$2" >&3
	read -r -t 2 line <&3 || true
	exec 3>&-
	echo "$line"
}
