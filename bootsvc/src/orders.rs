//! Work that people have ordered on a page: a process of its own for each, one after the other.

use crate::paths::Paths;
use rustix::process::{Pid, Signal, kill_process};
use service::Service;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// How long such a process may take to remove what it has made, when the boot server stops.
const STOP_DEADLINE: Duration = Duration::from_secs(3);

/// After a process could not be started, or ended at once, time until the next is; it doubles as long as that is for the same order, whose
/// end can't be written on a full disk.
const PAUSE: Duration = Duration::from_secs(1);

/// It doubles so often at most.
const DOUBLED_MAX: u32 = 6;

/// Has orders done until `stop`. What is interrupted then is begun again by the next boot server.
pub(crate) async fn run(paths: Paths, service: Service, stop: CancellationToken) {
    let (mut last, mut n_again) = (None, 0);
    loop {
        let number = tokio::select! {
            () = stop.cancelled() => return,
            number = service.next_order() => number,
        };
        n_again = if last == Some(number) { DOUBLED_MAX.min(n_again + 1) } else { 0 };
        last = Some(number);
        let n_begins = service.n_begins(number).await;
        tracing::info!(job = number, "job begins");
        match start(&paths, number) {
            Ok(child) => {
                if !wait(child, number, &stop).await {
                    return;
                }
            }
            Err(error) => tracing::error!(job = number, %error, "a job can't be started"),
        }
        service.after_order(number, n_begins).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE * 2_u32.pow(n_again)) => {}
        }
    }
}

fn start(paths: &Paths, number: u64) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--root").arg(&paths.root).args(["job", "run"]).arg(number.to_string());
    // The service manager talks with us.
    for of_ours in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC"]
    {
        command.env_remove(of_ours);
    }
    // What it says is in the job. Ctrl-C is for us, who tell it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.kill_on_drop(true).spawn()
}

/// Waits for the end; `false` if that is the boot server's.
async fn wait(mut child: Child, number: u64, stop: &CancellationToken) -> bool {
    let process = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    tokio::select! {
        ended = child.wait() => {
            let status = ended.map_or_else(|error| error.to_string(), |it| it.to_string());
            tracing::info!(job = number, status, "job ended");
            true
        }
        () = stop.cancelled() => {
            // It is our child, and not waited for: nobody else has its number.
            if let Some(process) = process {
                let _ = kill_process(process, Signal::TERM);
            }
            if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
                tracing::warn!(job = number, "the process of a job does not end: it is killed");
            }
            false
        }
    }
}
