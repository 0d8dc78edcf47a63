//! The other end of the network of trials, for clients in this process.

use super::pc::is_there;
use super::{HOST, INTERFACE, NETWORK, ip};
use anyhow::{Context as _, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;

/// The clients' interface.
pub(crate) const FAR_INTERFACE: &str = "pc0";

/// Makes the network, and runs `play` at its far end, in a network namespace of its own, when this thread has made things ready;
/// both are gone afterwards.
///
/// # Errors
/// Another trial runs, this process may not make networks, or things can't be made ready.
pub(crate) fn run<T: Send>(
    make_ready: impl FnOnce() -> anyhow::Result<()>,
    play: impl FnOnce() -> T + Send,
) -> anyhow::Result<T> {
    if is_there() {
        bail!("a PC is tried on this host just now");
    }
    thread::scope(|scope| {
        let (made, is_made) = mpsc::channel();
        let (begin, is_begun) = mpsc::channel::<()>();
        let far = scope.spawn(move || {
            let laid = lay();
            let is_laid = laid.is_ok();
            let _ = made.send(laid);
            // Whoever waits for the near end to be ready hears nothing if it is not.
            (is_laid && is_begun.recv().is_ok()).then(play)
        });
        let near = is_made.recv().context("the thread of the far end died")?.and_then(|()| {
            ip(&["address", "add", &format!("{HOST}/{}", NETWORK.prefix), "dev", INTERFACE])?;
            ip(&["link", "set", INTERFACE, "up"])?;
            make_ready()
        });
        match near {
            Ok(()) => _ = begin.send(()),
            Err(_) => drop(begin),
        }
        let played = far.join().map_err(|_| anyhow!("the thread of the far end died"))?;
        near?;
        played.context("nothing was played")
    })
}

/// Moves this thread to a namespace of its own, with an interface whose other end is on the host.
fn lay() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
    let host = std::process::id().to_string();
    ip(&["link", "add", FAR_INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", &host])?;
    ip(&["link", "set", FAR_INTERFACE, "up"])
}

/// Gives the far end this address and router, and no other.
///
/// # Errors
/// They don't fit.
pub(crate) fn take_address(
    address: Ipv4Addr,
    prefix: u8,
    router: Option<Ipv4Addr>,
) -> anyhow::Result<()> {
    ip(&["address", "flush", "dev", FAR_INTERFACE])?;
    ip(&["address", "add", &format!("{address}/{prefix}"), "dev", FAR_INTERFACE])?;
    match router {
        Some(router) => ip(&["route", "replace", "default", "via", &router.to_string()]),
        None => Ok(()),
    }
}

/// Takes its address away.
///
/// # Errors
/// As [`take_address`].
pub(crate) fn drop_address() -> anyhow::Result<()> {
    ip(&["address", "flush", "dev", FAR_INTERFACE])
}
