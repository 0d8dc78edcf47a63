//! `bootlace status`

use super::{open, runtime, say, table};
use crate::boot_socket;
use crate::paths::Paths;
use clap::Args;
use model::FindingKind;
use service::Service;

/// Without it the rest may look as if all were well.
const NO_BOOT_SERVER: &str = "boot server: none answers, so no PC can boot: start it by bootlace up, or by systemctl \
                              start bootlace. What follows is what the disk shows";

#[derive(Args)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let service = open(paths)?;
        let (status, machines, told) = runtime()?.block_on(async {
            service.refresh_exports().await;
            (service.status().await, service.machines(), told(paths, &service).await)
        });
        let (findings, is_boot_server_running) = told?;
        if self.json {
            let mut status = serde_json::to_value(&status)?;
            // This process sees fewer.
            (status["findings"], status["n_findings_left_out"]) =
                (serde_json::to_value(&findings)?, 0.into());
            let all = serde_json::json!({
                "status": status,
                "machines": machines,
                "boot_server_is_running": is_boot_server_running,
            });
            say(serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        say(format!(
            "{}, {}, {}",
            count(status.n_machines, "machine"),
            count(status.n_image_versions, "image version"),
            count(status.n_discovered, "discovered PC")
        ));
        if !is_boot_server_running {
            say(NO_BOOT_SERVER);
        }
        match &status.storage_error {
            Some(error) => say(error),
            None => say(match status.space {
                Some(space) => format!(
                    "storage server: running, {:.1} GB of {:.0} GB free",
                    space.free_bytes as f64 / 1e9,
                    space.total_bytes as f64 / 1e9
                ),
                None => "storage server: running".to_owned(),
            }),
        }
        if !machines.is_empty() {
            let rows: Vec<[String; 4]> = machines
                .iter()
                .map(|view| {
                    [
                        view.machine.name.to_string(),
                        view.state.word.to_string(),
                        view.address.map_or("-".into(), |address| address.to_string()),
                        view.state.sentence.clone(),
                    ]
                })
                .collect();
            say(format!("\n{}", table(["MACHINE", "STATE", "ADDRESS", ""], &rows)));
        }
        if !findings.is_empty() {
            say("\nNeeds attention:");
        }
        for alike in findings.chunk_by(Told::is_like) {
            say(lines(alike));
        }
        Ok(())
    }
}

/// A finding as the API tells it. A server of another version may have kinds that this program does not know.
#[derive(serde::Deserialize, serde::Serialize)]
pub(super) struct Told {
    kind: String,
    level: String,
    about: String,
    subject: String,
    since_unix_ms: u64,
    last_unix_ms: u64,
    count: u64,
    cause: String,
    remedy: String,
}

impl Told {
    /// Whether a person fixes both at once.
    fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.cause == other.cause
    }

    pub(super) fn is(&self, kind: FindingKind) -> bool {
        self.kind == kind.word()
    }
}

/// Subjects of one line; those beyond are counted.
const SUBJECTS_SHOWN_MAX: usize = 12;

/// What findings with one cause say; they are not none.
pub(super) fn lines(alike: &[Told]) -> String {
    let subjects = alike.iter().filter(|told| told.about != "server");
    let subjects: Vec<&str> = subjects.map(|told| told.subject.as_str()).collect();
    let about = match subjects.as_slice() {
        [] => String::new(),
        [one] => format!("{one}: "),
        many => {
            let n_more = many.len().saturating_sub(SUBJECTS_SHOWN_MAX);
            let shown = many[..many.len() - n_more].join(", ");
            let more = if n_more > 0 { format!(" and {n_more} more") } else { String::new() };
            format!("{shown}{more} ({}): ", many.len())
        }
    };
    let n_times: u64 = alike.iter().map(|told| told.count).sum();
    let times = match n_times > alike.len() as u64 {
        true => format!(" ({n_times} times)"),
        false => String::new(),
    };
    let Told { level, cause, remedy, .. } = &alike[0];
    let cause = cause.trim_end_matches('.');
    format!("- {level}: {about}{cause}{times}.\n  {remedy}")
}

/// What the running boot server has found; if none runs, what the state shows.
pub(super) async fn findings(paths: &Paths, service: &Service) -> anyhow::Result<Vec<Told>> {
    Ok(told(paths, service).await?.0)
}

/// As [`findings`], and whether a boot server runs.
async fn told(paths: &Paths, service: &Service) -> anyhow::Result<(Vec<Told>, bool)> {
    let told = boot_socket::get(&paths.boot_socket(), "/api/v1/findings").await;
    let (findings, is_running) = match told {
        Ok(mut told) => (told["findings"].take(), true),
        Err(_) => (serde_json::to_value(service.findings().await)?, false),
    };
    Ok((serde_json::from_value(findings)?, is_running))
}

/// `1 machine`, `2 machines`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
