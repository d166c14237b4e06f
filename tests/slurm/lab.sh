#!/usr/bin/env bash
# A real SLURM on this host for the tests: a controller, virtual nodes (one slurmd each; some with fake GPUs) and
# accounting in a database of its own. Everything lies in one folder, nothing outside it is changed but packages.
#
#   lab.sh FOLDER up        install packages if root and missing, configure, start, wait until a first job is done
#   lab.sh FOLDER down      cancel its jobs and end its own daemons, by their pid files
#   lab.sh FOLDER status    what runs, and the nodes
#   lab.sh FOLDER crash N   kill -9 node N's slurmd and the steps of its jobs, as when a machine dies
#   lab.sh FOLDER revive N  start node N's slurmd again
#   lab.sh FOLDER restart   kill -9 the controller and start it again, five seconds later
#
# Then, in a shell:  . FOLDER/env.sh     (SLURM_CONF, and FOLDER/bin first in PATH)
# FOLDER must be short: the path of a socket has at most 107 characters.
# Settings, by environment: LAB_NODES=3, LAB_GPU_NODES=2, LAB_PORT=26800, LAB_INSTALL=1 (0: never call apt-get).
# Debian's and Ubuntu's packages (slurmd built for several on one host); ordinary users can run all but the install.
set -euo pipefail

[ $# -ge 2 ] || { sed -n '2,15p' "$0"; exit 2; }
mkdir -p "$1"
L=$(cd "$1" && pwd -P)
PORT=${LAB_PORT:-26800}; NODES=${LAB_NODES:-3}; GPU_NODES=${LAB_GPU_NODES:-2}
ME=$(id -un)
export SLURM_CONF=$L/etc/slurm.conf

# the real clients, not the wrappers of a lab whose env.sh is in effect
clean=
while IFS= read -r -d : d; do
    [ "$(head -c 2 "$d/srun" 2> /dev/null)" = '#!' ] || clean+=$d:
done <<< "$PATH:"
export PATH=${clean}/usr/sbin:/sbin

die() { printf 'lab: %s\n' "$*" >&2; exit 1; }
cannot() { printf 'no SLURM here: %s\n' "$*" >&2; exit 3; } # 3: nothing is wrong with the lab

# ---- processes, by pid file and name

pid_of() { # pid_of PIDFILE NAME: the pid if that process is still the daemon, or nothing
    local p
    p=$(cat "$1" 2> /dev/null) && [ "$(cat "/proc/$p/comm" 2> /dev/null)" = "$2" ] \
        && ! grep -q '^State:.Z' "/proc/$p/status" 2> /dev/null && echo "$p"
}

daemons() { # pid file and process name, in the order of stopping
    local f
    for f in "$L"/run/slurmd.*.pid; do [ -e "$f" ] && echo "$f slurmd"; done
    echo "$L/run/slurmctld.pid slurmctld"
    echo "$L/run/slurmdbd.pid slurmdbd"
    echo "$L/run/mysql.pid mariadbd"
    echo "$L/run/munged.pid munged"
}

steps_of() { # pids of slurmstepd processes of a job; they call themselves "slurmstepd: [JOB.STEP]"
    local p
    for p in /proc/[0-9]*; do
        tr '\0' ' ' < "$p/cmdline" 2> /dev/null | grep -q "^slurmstepd: \[$1\." && basename "$p"
    done
    true
}

descendants() {
    local c
    for c in $(cat "/proc/$1/task/$1/children" 2> /dev/null); do descendants "$c"; echo "$c"; done
}

start() { # quietly: a daemon that holds the caller's output open would make a pipe wait for ever
    (cd "$L" && exec "$@") > "$L/log/$(basename "$1").out" 2>&1 < /dev/null
}

wait_for() { # wait_for SECONDS WHAT COMMAND...
    local tries=$(($1 * 10)) what=$2
    shift 2
    while ! "$@" > /dev/null 2>&1; do
        ((tries-- > 0)) || die "$what did not come up; see $L/log"
        sleep 0.1
    done
}

# ---- packages

install() {
    local missing=()
    for c in slurmctld slurmd sbatch; do type -P $c > /dev/null || missing=(slurm-wlm); done
    type -P munged > /dev/null || missing+=(munge)
    type -P slurmdbd > /dev/null || missing+=(slurmdbd)
    type -P mariadbd > /dev/null || missing+=(mariadb-server)
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "${LAB_INSTALL:-1}" = 1 ] && [ "$(id -u)" = 0 ] && type -P apt-get > /dev/null \
        || cannot "packages are missing and cannot be installed (no root, or no apt-get): ${missing[*]}"
    local policy=/usr/sbin/policy-rc.d mine=no
    if [ ! -e $policy ]; then # packages must not start daemons of their own
        printf '#!/bin/sh\nexit 101\n' > $policy
        chmod 755 $policy
        mine=yes
    fi
    local failed=no
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } \
        > "$L/log/apt.log" 2>&1 || failed=yes
    [ $mine = no ] || rm -f $policy
    [ $failed = no ] || { tail -5 "$L/log/apt.log" >&2; cannot "apt-get failed"; }
}

# ---- configuration

cgroups() { # whether memory can be limited by cgroups (version 1; SLURM 22.05 wants systemd for version 2)
    local c
    [ "$(id -u)" = 0 ] || return 1
    for c in memory freezer; do
        mkdir "/sys/fs/cgroup/$c/bsnn_lab_probe" 2> /dev/null && rmdir "/sys/fs/cgroup/$c/bsnn_lab_probe" || return 1
    done
}

configure() {
    local host address any limits i c
    host=$(hostname -s)
    address=$(getent ahostsv4 "$host" 2> /dev/null | awk 'NR == 1 {print $1}') || true
    case $address in
        127.*) any="CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" ;; # listen on loopback alone
        *) address=127.0.0.1 any= ;;
    esac
    rm -f "$L/etc/cgroup.conf"
    if cgroups; then
        limits=$'ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup'
        printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup ConstrainRAMSpace=yes ConstrainCores=no \
            ConstrainSwapSpace=no ConstrainDevices=no > "$L/etc/cgroup.conf"
    else
        limits=$'ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherParams=OverMemoryKill'
    fi
    cat > "$L/etc/slurm.conf" << END
ClusterName=lab
SlurmctldHost=$host($address)
SlurmctldPort=$((PORT + 17))
SlurmUser=$ME
SlurmdUser=$ME
AuthType=auth/munge
AuthInfo=socket=$L/run/munge.socket
CredType=cred/munge
$any
StateSaveLocation=$L/state
SlurmdSpoolDir=$L/spool/%n
SlurmctldPidFile=$L/run/slurmctld.pid
SlurmdPidFile=$L/run/slurmd.%n.pid
SlurmctldLogFile=$L/log/slurmctld.log
SlurmdLogFile=$L/log/slurmd.%n.log
$limits
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
# nodes may claim more than the host has
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=15
# seconds between SIGTERM and SIGKILL; SLURM's own default is 30
KillWait=10
# the executor's squeue mode needs at least three times its first-look seconds
MinJobAge=300
JobRequeue=1
SchedulerParameters=sched_min_interval=0,sched_interval=1,bf_interval=1,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobCompType=jobcomp/filetxt
JobCompLoc=$L/log/jobcomp.log
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$address
AccountingStoragePort=$((PORT + 19))
AccountingStoragePass=$L/run/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
GresTypes=gpu
END
    echo AutoDetect=off > "$L/etc/gres.conf"
    for i in $(seq "$NODES"); do
        echo "NodeName=node$i NodeHostname=$host NodeAddr=$address Port=$((PORT + 100 + i)) CPUs=4 RealMemory=32000"
    done >> "$L/etc/slurm.conf"
    for i in $(seq "$GPU_NODES"); do
        echo "NodeName=gpu$i NodeHostname=$host NodeAddr=$address Port=$((PORT + 200 + i)) CPUs=4 RealMemory=32000 Gres=gpu:2" \
            >> "$L/etc/slurm.conf"
        # a device, or CUDA_VISIBLE_DEVICES is not set
        for c in 0 1; do ln -sfn /dev/null "$L/dev/gpu$i-$c"; done
        echo "NodeName=gpu$i Name=gpu File=$L/dev/gpu$i-[0-1]" >> "$L/etc/gres.conf"
    done
    cat >> "$L/etc/slurm.conf" << END
PartitionName=cpu Nodes=node[1-$NODES] Default=YES MaxTime=24:00:00 State=UP
# spread over the nodes
PartitionName=gpu Nodes=gpu[1-$GPU_NODES] LLN=YES MaxTime=24:00:00 State=UP
END
    (
        umask 077 # slurmdbd refuses any other mode
        cat > "$L/etc/slurmdbd.conf" << END
DbdHost=$host
DbdAddr=$address
DbdPort=$((PORT + 19))
SlurmUser=$ME
AuthType=auth/munge
AuthInfo=socket=$L/run/munge.socket
PidFile=$L/run/slurmdbd.pid
LogFile=$L/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$ME
StorageLoc=slurm_acct
END
        [ -s "$L/etc/munge.key" ] || head -c 1024 /dev/urandom > "$L/etc/munge.key"
    )
    # within a job the executor drops SLURM_CONF; a configuration away from its default place needs these
    for c in srun sbatch squeue sacct scancel sinfo scontrol sacctmgr sshare sstat; do
        printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(type -P $c)" > "$L/bin/$c"
        chmod 755 "$L/bin/$c"
    done
    printf 'export SLURM_CONF=%s\nexport PATH=%s:$PATH\n' "$SLURM_CONF" "$L/bin" > "$L/env.sh"
}

# ---- commands

all_idle() { [ "$(sinfo -h -N -t idle -o %N | sort -u | wc -l)" = $((NODES + GPU_NODES)) ]; }

up() {
    [ ${#L} -lt 80 ] || die "the folder's path is too long for a socket: $L"
    daemons | while read -r file name; do
        ! pid_of "$file" "$name" > /dev/null || die "already up in $L"
    done
    mkdir -p "$L"/{etc,spool,state,log,run,dev,bin}
    install
    configure
    start munged --force --key-file="$L/etc/munge.key" --socket="$L/run/munge.socket" --pid-file="$L/run/munged.pid" \
        --log-file="$L/log/munged.log" --seed-file="$L/run/munged.seed"
    wait_for 10 munged munge -S "$L/run/munge.socket" -n
    [ -d "$L/mysql/mysql" ] || start mariadb-install-db --no-defaults --user="$ME" --datadir="$L/mysql" --skip-test-db \
        --auth-root-authentication-method=socket --auth-root-socket-user="$ME" --skip-name-resolve
    (cd "$L" && exec setsid mariadbd --no-defaults --user="$ME" --datadir="$L/mysql" --socket="$L/run/mysql.sock" \
        --pid-file="$L/run/mysql.pid" --skip-networking --log-error="$L/log/mysql.err" --innodb-buffer-pool-size=64M \
        --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2 > /dev/null 2>&1 < /dev/null) &
    wait_for 30 mariadbd mariadb-admin --no-defaults -u "$ME" -S "$L/run/mysql.sock" ping
    MYSQL_UNIX_PORT=$L/run/mysql.sock start slurmdbd
    wait_for 30 slurmdbd sacctmgr -n list cluster
    sacctmgr -i -Q add cluster lab > /dev/null 2>&1 || true
    sacctmgr -i -Q add account project Description=project Organization=lab > /dev/null 2>&1 || true
    sacctmgr -i -Q add user "$ME" DefaultAccount=project > /dev/null 2>&1 || true
    start slurmctld
    wait_for 20 slurmctld scontrol ping
    for n in $(seq -f 'node%g' "$NODES") $(seq -f 'gpu%g' "$GPU_NODES"); do start slurmd -N "$n"; done
    wait_for 30 "a node" all_idle
    timeout 30 srun -N1 true || die "the first job failed; see $L/log"
    sinfo -N -o '%N %P %T %C %m %G'
}

down() {
    local file name p
    if pid_of "$L/run/slurmctld.pid" slurmctld > /dev/null; then
        timeout 10 scancel -u "$ME" 2> /dev/null || true
        for _ in $(seq 20); do [ -z "$(timeout 5 squeue -h -t R,CG 2> /dev/null)" ] && break; sleep 0.5; done
    fi
    daemons | while read -r file name; do
        p=$(pid_of "$file" "$name") || continue
        kill "$p"
        for _ in $(seq 100); do [ "$(cat "/proc/$p/comm" 2> /dev/null)" = "$name" ] || break; sleep 0.1; done
        [ "$(cat "/proc/$p/comm" 2> /dev/null)" != "$name" ] || kill -9 "$p" || true
        rm -f "$file"
    done
    for name in "$L"/spool/*/; do # groups of ended steps stay behind; rmdir refuses those with processes
        for file in /sys/fs/cgroup/*/"slurm_$(basename "$name")"; do
            [ ! -d "$file" ] || find "$file" -depth -type d -exec rmdir {} \; 2> /dev/null || true
        done
    done
}

status() {
    daemons | while read -r file name; do
        ! p=$(pid_of "$file" "$name") || echo "$name $p ($(basename "$file"))"
    done
    timeout 10 sinfo -N -o '%N %P %T %C %m %G %E' || true
}

crash() {
    local job step p
    p=$(pid_of "$L/run/slurmd.$1.pid" slurmd) || die "no slurmd runs for $1"
    kill -9 "$p"
    for job in $(squeue -h -w "$1" -o %i); do
        for step in $(steps_of "$job"); do kill -9 $(descendants "$step") "$step" 2> /dev/null || true; done
    done
    rm -f "$L/run/slurmd.$1.pid"
}

revive() {
    start slurmd -N "$1"
    # no star: it responds; its dead jobs may stay in its books for a while
    wait_for 60 "$1" sh -c "sinfo -h -N -n $1 -o %T | grep -qxE 'idle|mixed|allocated'"
}

restart() {
    local p
    p=$(pid_of "$L/run/slurmctld.pid" slurmctld) || die "no slurmctld runs"
    kill -9 "$p"
    sleep 5
    start slurmctld
    wait_for 20 slurmctld scontrol ping
}

command=$2
shift 2
case $command in
    up | down | status | crash | revive | restart) "$command" "$@" ;;
    *) die "unknown command $command" ;;
esac
