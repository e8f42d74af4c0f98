# Debian packages, installed when a command is missing. Installing one must not
# start a system service, nor leave one that starts with the machine.
#
# Needs: die, say.

# need PACKAGE=COMMAND…: installs the packages whose command is missing. A
# COMMAND with a slash is a glob for a file.
need() {
	local pair missing=()
	for pair in "$@"; do
		has "${pair#*=}" || missing+=("${pair%%=*}")
	done
	((${#missing[@]} == 0)) && return
	command -v apt-get >/dev/null ||
		die "these are missing: ${missing[*]}. Install them with this system's package manager, then run this again"
	local sudo=()
	if ((EUID != 0)); then
		command -v sudo >/dev/null ||
			die "these are missing: ${missing[*]}. Install them (apt-get install ${missing[*]}), or run this as root once"
		sudo=(sudo)
	fi
	say "installing ${missing[*]} (once)"
	install_packages "${missing[@]}"
}

has() {
	case $1 in
	*/*) compgen -G "$1" >/dev/null ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

# install_packages PACKAGE…: uses sudo of its caller. The policy file is what
# Debian asks before a package may start its service; an existing one stays.
install_packages() {
	local policy=/usr/sbin/policy-rc.d ours='' failed='' before
	before=$(units)
	if ! [ -e "$policy" ]; then
		ours=yes
		trap 'remove_policy; exit 130' INT TERM
		printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
		"${sudo[@]}" chmod 755 "$policy"
	fi
	"${sudo[@]}" apt-get update -q && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -q -y --no-install-recommends "$@" || failed=yes
	if [ -n "$ours" ]; then
		remove_policy
		trap - INT TERM
	fi
	[ -z "$failed" ] || die "could not install $*: see the lines above"
	disable_new_units "$before"
}

remove_policy() { "${sudo[@]}" rm -f /usr/sbin/policy-rc.d; }

# units: the services that start with this machine; nothing without systemd.
units() {
	[ -d /run/systemd/system ] || return 0
	systemctl list-unit-files --type=service --state=enabled --no-legend | cut -d' ' -f1 | sort
}

disable_new_units() {
	local new
	[ -d /run/systemd/system ] || return 0
	mapfile -t new < <(comm -13 <(echo "$1") <(units))
	((${#new[@]} == 0)) || "${sudo[@]}" systemctl disable --quiet "${new[@]}"
}
