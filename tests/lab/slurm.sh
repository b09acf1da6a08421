#!/usr/bin/env bash
# A real SLURM on this one machine, on loopback, as root, for an hour of trying popup's --cluster slurm:
#
#     tests/lab/slurm.sh start    installs slurm-wlm and munge (Debian, Ubuntu), writes /etc/slurm/slurm.conf, starts the daemons
#     tests/lab/slurm.sh stop     ends them
#
# No accounting, no cgroups, preemption by partition (jobs of `high` requeue those of `low`). Not for production.
set -euo pipefail

start() {
    command -v slurmctld > /dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge
    mkdir -p /run/munge /var/lib/slurm /var/log/slurm /etc/slurm
    chown munge:munge /run/munge /etc/munge /var/lib/munge /var/log/munge
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none; }
    chown munge:munge /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
    pgrep -x munged > /dev/null || runuser -u munge -- /usr/sbin/munged --force
    cat > /etc/slurm/slurm.conf << CONF
ClusterName=popup
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_interval=2
JobRequeue=1
KillWait=5
MinJobAge=3600
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation=/var/lib/slurm
SlurmdSpoolDir=/var/lib/slurm/spool
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ReturnToService=2
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=localhost CPUs=${CORES:-4} RealMemory=$(free -m | awk '/^Mem/ {print int($2 / 2)}') Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=high Nodes=localhost MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
CONF
    printf 'Name=gpu File=/dev/%s\n' null zero > /etc/slurm/gres.conf  # two GPUs in name only, so that --gpus can be tried
    pgrep -x slurmctld > /dev/null || slurmctld
    pgrep -x slurmd > /dev/null || slurmd -N localhost
    for _ in $(seq 60); do
        sinfo -h -o %T 2> /dev/null | grep -q idle && break
        scontrol update nodename=localhost state=resume 2> /dev/null || true
        sleep 1
    done
    sinfo
}

stop() {
    for daemon in slurmd slurmctld munged; do
        if [ "$daemon" = munged ]; then place=/run/munge/munged.pid; else place=/run/$daemon.pid; fi
        [ -s "$place" ] && kill "$(cat "$place")" || true
        for _ in $(seq 20); do pgrep -x "$daemon" > /dev/null || break; sleep 0.5; done
    done
}

case "${1:-}" in
    start | stop) "$1" ;;
    *) sed -n '2,8p' "$0" && exit 2 ;;
esac
