//! `bootlace status`

use super::{open, runtime, say, table};
use crate::paths::Paths;
use clap::Args;

#[derive(Args)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let service = open(paths)?;
        let (status, machines) = runtime()?.block_on(async {
            service.refresh_exports().await;
            (service.status().await, service.machines())
        });
        if self.json {
            let all = serde_json::json!({ "status": status, "machines": machines });
            say(serde_json::to_string_pretty(&all)?);
            return Ok(());
        }
        say(format!(
            "{}, {}, {}",
            count(status.n_machines, "machine"),
            count(status.n_image_versions, "image version"),
            count(status.n_discovered, "discovered PC")
        ));
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
        if !status.attention.is_empty() {
            say("\nNeeds attention:");
            for attention in &status.attention {
                let about = attention.machine.as_ref().map(|name| format!("{name}: "));
                say(format!("- {}{}", about.unwrap_or_default(), attention.sentence));
            }
        }
        Ok(())
    }
}

/// `1 machine`, `2 machines`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
