//! Ctrl-C as an event, so that everything is taken down in order.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Hears SIGINT, SIGTERM and SIGHUP instead of ending by them. (Blocking them would not do: children
/// inherit the mask, and then nobody can stop them.)
pub(crate) struct Interrupt {
    has_come: Arc<AtomicBool>,
}

impl Interrupt {
    /// From now on.
    pub(crate) fn listen() -> Result<Self> {
        let has_come = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&has_come))
                .context("can't listen for signals")?;
        }
        Ok(Self { has_come })
    }

    /// Whether somebody wants us to end.
    pub(crate) fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Relaxed)
    }
}
