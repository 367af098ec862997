"""A real Slurm on one machine, with two GPUs that do not exist: munged, slurmctld, slurmd.

    python tests/slurm/testbed.py start|stop|status [FOLDER]

Everything lies in one folder and listens on 127.0.0.1, except for the links /etc/slurm/*.conf: the
plugin takes SLURM_CONF out of a job's environment, so a job finds its cluster in the default place
only. Needs root and Debian's packages; `missing()` says what stands in the way.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins")
DAEMONS = ("munged", "slurmctld", "slurmd")
LINKS = Path("/etc/slurm")
CONFIGS = ("slurm.conf", "gres.conf", "cgroup.conf")
NODE = "node1"
GPUS = 2
PORT = 26817
os.environ["PATH"] += os.pathsep + "/usr/sbin"

SLURM_CONF = """
ClusterName=shazam
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
# No cgroups, so that it runs in a container: nothing enforces memory or devices.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# The node is believed to have what is written here, whatever the machine has.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
# Start jobs at once; and a job that waits for a GPU must not reserve the only node.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,\\
bf_min_prio_reserve=4294967295
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Finished jobs stay visible to squeue, which is how the profile asks for them.
MinJobAge=86400
# A dead node is noticed in seconds.
SlurmdTimeout=5
KillWait=2
CompleteWait=0
ReturnToService=2
FirstJobId={first_job}
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} \\
  CPUs=32 RealMemory=400000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=ALL PriorityTier=1 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install {' '.join(PACKAGES)}"
    if os.getuid() != 0:
        return "needs root: the daemons, and the links in /etc/slurm"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "nothing"
    if not address.startswith("127."):
        return f"the host name stands for {address}, not for 127.x; add it to /etc/hosts"
    taken = [LINKS / n for n in CONFIGS if (LINKS / n).exists() and not (LINKS / n).is_symlink()]
    return f"{taken[0]} exists: this machine belongs to a Slurm" if taken else ""


@dataclasses.dataclass
class Cluster:
    """A cluster in `folder`; `start` it, use sbatch and the like, `stop` it."""

    folder: Path

    def start(self) -> None:
        """Start the daemons and wait until the node is idle.

        Raises:
            RuntimeError: it does not come up; with the ends of the logs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self._configure()
        self._link()
        _call(
            "munged",
            f"--socket={self.folder}/munge.socket",
            f"--key-file={self.folder}/munge.key",
            f"--pid-file={self.folder}/munged.pid",
            f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munge.seed",
        )
        _call("slurmctld")
        self.wait(lambda: _answers("scontrol", "ping"), "slurmctld")
        self.start_node()

    def start_node(self) -> None:
        """Start the node, or bring it back after a crash."""
        _call("slurmd", "-N", NODE)
        self.wait(self._idle, "the node")

    def stop(self) -> None:
        """Cancel this cluster's jobs, stop its daemons, remove the links."""
        with contextlib.suppress(subprocess.SubprocessError):
            subprocess.run(["scancel", *self.jobs()], capture_output=True, timeout=30, check=False)
            deadline = time.monotonic() + 10
            while self.jobs("RUNNING,COMPLETING") and time.monotonic() < deadline:
                time.sleep(0.2)
        for name in reversed(DAEMONS):
            self._end(name)
        for link in LINKS.glob("*.conf"):
            if link.is_symlink() and link.readlink().parent == self.folder:
                link.unlink()

    def crash(self) -> list[str]:
        """Kill the node's daemon and all its jobs' processes, as a power cut does.

        Returns:
            the jobs that ran.
        """
        jobs = self.jobs("RUNNING")
        pid = self._pid("slurmd")
        victims = [pid] if pid else []
        for step in _steps(set(jobs)):
            victims += [step, *_descendants(step)]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        (self.folder / "slurmd.pid").unlink(missing_ok=True)
        return jobs

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING,SUSPENDED") -> list[str]:
        """Numbers of the jobs in the given states."""
        done = subprocess.run(
            ["squeue", "--noheader", "--format=%i", f"--states={states}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout.split()

    def state(self, job: str) -> str:
        """The state of a job, e.g. RUNNING."""
        done = subprocess.run(
            ["squeue", "--noheader", "--format=%T", "--states=all", f"--jobs={job}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done.stdout.strip()

    def begin_now(self) -> None:
        """Requeued jobs are held for two minutes; here they may start at once."""
        for job in self.jobs("PENDING"):
            subprocess.run(
                ["scontrol", "update", f"jobid={job}", "starttime=now"],
                capture_output=True,
                timeout=30,
                check=False,
            )

    def wait(self, ready: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait until `ready`.

        Raises:
            RuntimeError: it takes too long; with the ends of the logs.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{p}\n{_end_of(p)}" for p in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"{what}: not up within {seconds:.0f} s\n{logs}")
            time.sleep(0.1)

    def _idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "--noheader", "--partition=main", "--format=%t"],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() in ("idle", "mix", "alloc")

    def _configure(self) -> None:
        for name in ("state", "spool"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(128))
        text = SLURM_CONF.format(
            host=socket.gethostname(),
            folder=self.folder,
            port=PORT,
            node_port=PORT + 1,
            node=NODE,
            gpus=GPUS,
            first_job=1000 + secrets.randbelow(50_000),
        )
        (self.folder / "slurm.conf").write_text(text)
        # A character device per GPU, or Slurm counts them and sets no CUDA_VISIBLE_DEVICES.
        lines = []
        for number in range(GPUS):
            device = self.folder / f"gpu{number}"
            if not device.exists():
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))  # as /dev/null
            lines.append(f"NodeName={NODE} Name=gpu File={device} Flags=nvidia_gpu_env\n")
        (self.folder / "gres.conf").write_text("".join(lines))
        # From 23.11 on, Slurm looks for cgroups even where no plugin wants them.
        version = subprocess.run(["slurmctld", "-V"], capture_output=True, text=True, check=True)
        major, minor = (int(part) for part in version.stdout.split()[1].split(".")[:2])
        if (major, minor) >= (23, 11):
            (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")

    def _link(self) -> None:
        LINKS.mkdir(exist_ok=True)
        for file in self.folder.glob("*.conf"):
            link = LINKS / file.name
            if link.is_symlink() and not link.exists():
                link.unlink()  # of a cluster whose folder is gone
            if link.is_symlink() and link.readlink() != file:
                raise RuntimeError(f"{link} belongs to another cluster: stop that one first")
            if not link.is_symlink():
                link.symlink_to(file)

    def _pid(self, name: str) -> int | None:
        """The daemon's process, if the one of that number is still it."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        except (OSError, ValueError):
            return None
        return pid if Path(command).name == name else None

    def _end(self, name: str) -> None:
        for sign, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
            pid = self._pid(name)
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            deadline = time.monotonic() + seconds
            while self._pid(name) and time.monotonic() < deadline:
                time.sleep(0.1)


def _steps(jobs: set[str]) -> list[int]:
    """The processes in which Slurm runs the given jobs; their titles name the job."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            title = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if title.startswith("slurmstepd: [") and title[13:].split(".")[0] in jobs:
                found.append(int(path.parent.name))
    return found


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def _answers(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _end_of(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def main() -> None:
    action = sys.argv[1] if len(sys.argv) > 1 else ""
    cluster = Cluster(Path(sys.argv[2] if len(sys.argv) > 2 else "/tmp/shazam-slurm").absolute())
    if action == "start":
        sys.exit(missing() or cluster.start())
    elif action == "stop":
        cluster.stop()
    elif action == "status":
        sys.exit(subprocess.run(["sinfo", "--Node", "--long"], check=False).returncode)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
