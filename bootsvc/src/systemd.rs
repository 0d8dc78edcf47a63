//! What a service manager, such as systemd, is told, and what it hands over. Nothing happens if none has started us.

use sd_notify::NotifyState;
use std::convert::Infallible;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Names of the sockets that are kept over a restart.
pub(crate) const NBD: &str = "bootlace-nbd";
pub(crate) const STORAGE_API: &str = "bootlace-storage-api";
pub(crate) const BOOT_FILES: &str = "bootlace-boot-files";
pub(crate) const PAGES: &str = "bootlace-pages";

/// Says that we serve.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Has these sockets kept open, below this name and instead of others of the name, until our successor takes them over: who
/// connects in the meantime waits. It does so as long as the unit has `FileDescriptorStoreMax`.
pub(crate) fn keep(name: &str, sockets: &[BorrowedFd<'_>]) {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    let stored =
        sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], sockets);
    if let Err(error) = stored {
        tracing::warn!(%error, name, "sockets are not kept over a restart");
    }
}

/// Gives signs of life for as long as it is polled, and a worker of the runtime is free now and then: a process that hangs is
/// ended by systemd, and started again (`WatchdogSec`).
pub(crate) async fn watchdog() -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero())
    else {
        return std::future::pending().await;
    };
    let mut turns = tokio::time::interval(turn(patience));
    loop {
        turns.tick().await;
        // A task of its own is done by another thread than the one that waits here.
        if tokio::spawn(async {}).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Two signs may be late.
fn turn(patience: Duration) -> Duration {
    patience / 3
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
