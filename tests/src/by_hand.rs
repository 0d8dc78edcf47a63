//! What somebody does at a server on which the package is installed: a setup in the browser, and a look at the log.

use crate::command::text_of;
use crate::installed::Installed;
use crate::lan::{Lan, SERVER};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long each step may take; the longest starts both servers.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where the server keeps what a terminal shows.
const SHOWN: &str = "/run/shown";

/// The administrator who is added.
const PASSWORD: &str = "three blue doors";

impl Installed {
    /// Walks through `bootlace setup --lan` with a browser, an account among it; the servers serve then.
    ///
    /// # Errors
    /// A page is not the one that comes next, or the servers don't start.
    pub fn set_up_on_page(&self, lan: &Lan) -> Result<()> {
        let shown = self.server().path(SHOWN);
        let _ = fs::remove_file(&shown);
        let setup = format!("exec bootlace setup --lan --interface br0 > {SHOWN} 2>&1");
        let mut setup = self.server().command(&["sh", "-c", &setup]).spawn()?;
        self.server().wait_until("shows its link", PATIENCE, |_| {
            fs::read_to_string(&shown).is_ok_and(|said| said.contains("Waiting"))
        })?;
        let said = fs::read_to_string(&shown)?;
        let start = format!("https://{SERVER}:");
        let link = said.split_whitespace().find(|word| word.starts_with(&start));
        let (url, code) = link.and_then(|link| link.split_once("?code=")).context(said.clone())?;
        let folder = tempfile::tempdir()?;
        let jar = folder.path().join("jar");
        let ask = |fields: &[&str]| {
            let mut curl = lan.netns().command("curl", Signal::SIGKILL);
            curl.args(["--insecure", "--silent", "--show-error", "--fail", "--location"]);
            curl.args(["--max-time", "90", "--noproxy", "*"]);
            curl.arg("--cookie").arg(&jar).arg("--cookie-jar").arg(&jar);
            for field in fields {
                curl.args(["--data-urlencode", field]);
            }
            let shown =
                || format!("{fields:?}: {}", fs::read_to_string(&shown).unwrap_or_default());
            text_of(curl.arg(url)).with_context(shown)
        };
        let (password, again) = (format!("password={PASSWORD}"), format!("again={PASSWORD}"));
        let code = format!("code={code}");
        let network = ["step=network", "pool=10.77.0.100-10.77.0.199", "router=", "dns="];
        for (fields, next) in [
            (&[code.as_str()][..], "Which network card"),
            (&["step=card", "card=br0"], "name=\"pool\""),
            (&network, "Name of the administrator"),
            (&["step=account", "name=anna", &password, &again], "first image"),
            (&["step=image", "file=", "name=x"], "The account anna is added"),
        ] {
            let page = ask(fields)?;
            ensure!(page.contains(next), "{fields:?}: no {next:?} in {page}");
        }
        ask(&["step=begin"])?;
        let deadline = Instant::now() + PATIENCE;
        while !ask(&[])?.contains("value=\"finish\"") {
            ensure!(Instant::now() < deadline, "it does not end: {}", fs::read_to_string(&shown)?);
            std::thread::sleep(Duration::from_millis(300));
        }
        let last = ask(&["step=finish"])?;
        ensure!(last.contains("The setup is over"), "{last}");
        let ended = setup.wait()?;
        ensure!(ended.success(), "{ended}: {}", fs::read_to_string(&shown)?);
        let users = self.server().run(&["bootlace", "user", "ls"])?;
        ensure!(users.contains("anna"), "{users}");
        self.wait_for_servers()
    }

    /// Follows the log at a terminal while something `happens` that is told in these `words`, and ends that by Ctrl-C.
    ///
    /// # Errors
    /// It does not happen, is not shown, or the command does not end.
    pub fn follow_logs(&self, words: &str, happens: impl FnOnce() -> Result<()>) -> Result<()> {
        let shown = self.server().path(SHOWN);
        let _ = fs::remove_file(&shown);
        // Who starts tests in the background may have them ignore Ctrl-C, and so would all that they start.
        let follow = ["env", "--default-signal=INT", "script", "--quiet", "--flush", "--command"];
        let follow = [&follow[..], &["bootlace logs --follow", SHOWN]].concat();
        let mut terminal = self.server().command(&follow);
        let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut keyboard = terminal.stdin.take().context("it has a keyboard")?;
        let shows = |words: &str| fs::read_to_string(&shown).is_ok_and(|said| said.contains(words));
        self.server().wait_until("shows its log", PATIENCE, |_| shows("boot server ready"))?;
        ensure!(!shows(words), "it has been said before: {words}");
        happens()?;
        self.server().wait_until("shows a new line", PATIENCE, |_| shows(words))?;
        keyboard.write_all(b"\x03")?;
        keyboard.flush()?;
        let deadline = Instant::now() + PATIENCE;
        while terminal.try_wait()?.is_none() {
            if Instant::now() > deadline {
                terminal.kill()?;
                terminal.wait()?;
                ensure!(false, "Ctrl-C does not end bootlace logs --follow");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // It has had the same Ctrl-C.
        self.server().wait_until("ends journalctl", PATIENCE, |server| {
            let names = server.ask(&["sh", "-c", "cat /proc/[0-9]*/comm"]);
            names.is_ok_and(|names| !names.lines().any(|name| name == "journalctl"))
        })?;
        Ok(())
    }
}
