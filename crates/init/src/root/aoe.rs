//! Attaches an AoE target as the root disk.

use crate::console::Console;
use crate::failure::Failure;
use crate::modules::{Modules, cannot_load};
use crate::net::nic::Nic;
use crate::patience::Patience;
use crate::root::disk::Disk;
use crate::sysfs;
use std::time::{Duration, Instant};

/// The driver asks for targets only once by itself (a link that comes up does not make it ask).
const DISCOVER_EVERY: Duration = Duration::from_millis(300);

const POLL: Duration = Duration::from_millis(20);

/// Waits for the target, for as long as it takes; `hint` is what else may be wrong, for people.
pub(crate) fn attach(
    nic: &Nic,
    (shelf, slot): (u16, u8),
    hint: &str,
    modules: &Modules,
    console: &Console,
) -> Result<Disk, Failure> {
    // Only this NIC is asked. A target that is away is waited for: with any other value than -1 the
    // driver fails all requests for ever after that many seconds. 128 frames may be on their way.
    let parameters =
        [("aoe_iflist", nic.name.as_str()), ("aoe_deadsecs", "-1"), ("aoe_maxout", "128")];
    let words: Vec<String> =
        parameters.iter().map(|(key, value)| format!("{key}={value}")).collect();
    modules.load("aoe", &words.join(" ")).map_err(|error| cannot_load("AoE", &error, modules))?;
    for (key, value) in parameters {
        // A driver that is part of the kernel took no parameters above.
        sysfs::tune(format!("/sys/module/aoe/parameters/{key}"), value);
    }
    let disk = Disk { name: format!("etherd/e{shelf}.{slot}") };
    let mut patience = Patience::new(console, "attach");
    let started = Instant::now();
    let mut next_discover = Duration::ZERO;
    loop {
        if disk.size_bytes().is_some() && std::fs::exists(disk.device()).unwrap_or(false) {
            return Ok(disk);
        }
        if started.elapsed() >= next_discover {
            sysfs::tune("/dev/etherd/discover", "x");
            next_discover = started.elapsed() + DISCOVER_EVERY;
        }
        if started.elapsed() > Duration::from_secs(2) {
            patience
                .waiting(&format!("waiting for AoE target {shelf}.{slot} on {}{hint}", nic.name));
        }
        std::thread::sleep(POLL);
    }
}
