//! AoE on an interface that may come late, or is there only now and then.

use super::socket::{SocketError, is_there};
use super::{AoeTarget, LINK_POLL};
use crate::admission::Admission;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;

/// Serves it whenever it is there; dropping it stops that.
pub(crate) struct AwaitedTarget {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AwaitedTarget {
    pub(crate) fn start(interface: &str, exports: Arc<dyn Admission>) -> Result<Self, SocketError> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("aoe-await".into());
        let thread = thread.spawn({
            let interface = interface.to_owned();
            move || serve(&interface, &exports, &stopped)
        });
        let thread = thread.map_err(|source| SocketError::new(interface, "start", source))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn serve(interface: &str, exports: &Arc<dyn Admission>, stopped: &Receiver<()>) {
    let mut target: Option<AoeTarget> = None;
    let mut is_told = false;
    loop {
        match (is_there(interface), &target) {
            (true, None) => match AoeTarget::start(interface, Arc::clone(exports)) {
                Ok(started) => {
                    tracing::info!(interface, "AoE is served there from now on");
                    (target, is_told) = (Some(started), false);
                }
                Err(error) if !is_told => {
                    tracing::warn!(error = wire::error_chain(&error), "AoE is not served yet");
                    is_told = true;
                }
                Err(_) => {}
            },
            (false, Some(_)) => {
                tracing::info!(interface, "AoE is no longer served there: the interface is gone");
                target = None;
            }
            _ => {}
        }
        if stopped.recv_timeout(LINK_POLL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

impl Drop for AwaitedTarget {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
