//! `bootlace doctor`: what can be wrong with this server beyond what `check` and the findings tell.

mod certificates;
mod data;
mod host;
mod kernel;
mod lan;
mod others;
mod servers;
mod units;
mod walk;

use crate::check::{Ours, Server, Verdict};
use crate::config::Config;
use crate::paths::Paths;
use crate::site::{Site, connect};
use serde_json::Value;

/// What a look was at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Area {
    /// The computer on which this runs.
    Host,
    /// Both servers, as they run or should.
    Servers,
    /// The configuration, and what servers need to start.
    Start,
    /// What a PC meets that boots.
    Network,
    /// What must not be lost.
    Data,
    /// What the boot server has found.
    Machines,
}

impl Area {
    /// In the order in which they are told: what comes first may be the cause of what comes later.
    pub(crate) const ALL: [Self; 6] =
        [Self::Host, Self::Servers, Self::Start, Self::Network, Self::Data, Self::Machines];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Host => "This computer",
            Self::Servers => "The servers",
            Self::Start => "What they need",
            Self::Network => "What a PC meets that boots",
            Self::Data => "What must not be lost",
            Self::Machines => "Machines, jobs and alerts",
        }
    }
}

/// One thing that was looked at.
pub(crate) struct Look {
    pub(crate) area: Area,
    pub(crate) verdict: Verdict,
}

impl Look {
    pub(crate) const fn new(area: Area, verdict: Verdict) -> Self {
        Self { area, verdict }
    }

    const fn at_host(verdict: Verdict) -> Self {
        Self::new(Area::Host, verdict)
    }

    const fn at_servers(verdict: Verdict) -> Self {
        Self::new(Area::Servers, verdict)
    }

    const fn at_data(verdict: Verdict) -> Self {
        Self::new(Area::Data, verdict)
    }
}

/// What needs the rights of whoever asks. `config` is there if it can be used.
pub(crate) fn as_caller(paths: &Paths, config: Option<&Config>, listens: bool) -> Vec<Look> {
    let mut looks = vec![host::clock()];
    looks.extend(host::disks(paths));
    let ours = Ours::find(paths);
    if let Some(config) = config {
        looks.extend(host::links(config));
        looks.extend(listens.then(|| host::listen(config)).into_iter().flatten());
        looks.extend(servers::looks(paths, &ours));
        let machines = machines(paths);
        looks.extend(kernel::looks(&machines));
        looks.extend(walk::looks(paths, config));
        looks.extend(lan::looks(config, &machines));
        looks.extend(certificates::looks(paths, config));
    }
    // Its units are those of the usual site.
    if paths.commands().are_usual() {
        looks.extend(units::looks(!matches!(ours.boot, Server::Absent)));
    }
    looks
}

/// All machines as the boot server has them; none if it does not answer.
fn machines(paths: &Paths) -> Vec<Value> {
    let site = connect(paths).ok().flatten().map(|stream| Site::of_server(paths, stream));
    let machines = site.and_then(|site| site.ok()?.get("/api/v1/machines").ok());
    machines.unwrap_or_default()
}

/// What the servers' user can see, too.
pub(crate) fn as_servers(paths: &Paths) -> Vec<Look> {
    data::looks(paths)
}
