//! `bootlace alert`

use super::{advise, runtime, say};
use crate::alerts::{self, Message};
use crate::config::Config;
use crate::paths::Paths;
use crate::privileges;
use anyhow::bail;
use clap::Subcommand;

#[derive(Subcommand)]
pub(super) enum Alert {
    /// Send a message by each way that is configured, and say what fails
    ///
    /// It goes by the settings in the file, [alerts] in bootlace.toml; a boot server that runs takes changed ones when it is
    /// restarted. If a message can't be sent, it says at which step: the name, the connection, TLS, the login, the sender or a
    /// recipient; and what helps. Ends with 0 if all were taken, or else with 1.
    ///
    ///   bootlace alert test
    #[command(verbatim_doc_comment)]
    Test,
}

impl Alert {
    pub(super) fn run(self, paths: &Paths) -> anyhow::Result<()> {
        let Self::Test = self;
        let config = Config::load(&paths.config())?;
        let ways = alerts::ways(&config.alerts);
        if ways.is_empty() {
            bail!(
                "no alerts are configured: write [alerts.mail] or [alerts.webhook] into {}, as bootlace help alerts shows",
                paths.config().display()
            );
        }
        // Files with passwords must be readable as they are to the boot server.
        privileges::become_servers_user(paths)?;
        let mut n_failed = 0;
        runtime()?.block_on(async {
            for way in ways {
                match way.send(&Message::trial()).await {
                    Ok(odd) => {
                        say(format!("{}: sent", way.whither_but(&odd)));
                        for odd in odd {
                            n_failed += 1;
                            let whom = odd.whom.as_deref().unwrap_or_default();
                            advise(
                                paths,
                                &format!("mail to {whom}: NOT sent: {odd}. {}", odd.help),
                            );
                        }
                    }
                    Err(failed) => {
                        n_failed += 1;
                        advise(
                            paths,
                            &format!("{}: NOT sent: {failed}. {}", way.whither(), failed.help),
                        );
                    }
                }
            }
        });
        match n_failed {
            0 => Ok(()),
            _ => bail!("not all was sent: see above"),
        }
    }
}
