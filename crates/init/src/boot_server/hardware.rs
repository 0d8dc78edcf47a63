//! What the machine is made of, for the boot server: it makes a smaller initrd of it.

use super::{http, secure_boot};
use crate::boot_server::token::TokenCell;
use crate::modules::coldplug;
use initcfg::{HARDWARE_MAX, HARDWARE_PATH};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Sends the list beside the boot. What it returns hears when that is done.
pub(crate) fn send(server: Ipv4Addr, boot: u64, token: TokenCell) -> Receiver<()> {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        // Without it the machine goes on with the initrd for all machines.
        let _ = http::put(server, &format!("{HARDWARE_PATH}{boot}"), token.get(), &list());
        let _ = done.send(());
    });
    is_done
}

/// Waits for what [`send`] began, but not for long.
pub(crate) fn finish(is_done: &Receiver<()>, limit: Duration) {
    let _ = is_done.recv_timeout(limit);
}

/// All hardware names, sorted, one a line, at most [`HARDWARE_MAX`] bytes; and whether Secure Boot is on.
fn list() -> String {
    let mut names = BTreeSet::new();
    if let Some(state) = secure_boot::state() {
        names.insert(state.hardware_name().to_owned());
    }
    coldplug::for_each_alias(&mut |alias| {
        if !alias.is_empty() {
            names.insert(alias.to_owned());
        }
    });
    let mut text = String::new();
    for name in names {
        if text.len() + name.len() < HARDWARE_MAX {
            text.push_str(&name);
            text.push('\n');
        }
    }
    text
}
