//! Ctrl-C as an event, so that everything is taken down in order.

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Hears SIGINT, SIGTERM and SIGHUP instead of ending by them. Children get them as usual.
pub(crate) struct Interrupt {
    signals: SignalFd,
}

impl Interrupt {
    /// From now on. Call it before there are threads, which would end the process by the signal.
    pub(crate) fn listen() -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().context("can't block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self { signals: SignalFd::with_flags(&set, flags).context("can't wait for signals")? })
    }

    /// Whether somebody wants us to end.
    pub(crate) fn has_come(&self) -> bool {
        matches!(self.signals.read_signal(), Ok(Some(_)))
    }
}
