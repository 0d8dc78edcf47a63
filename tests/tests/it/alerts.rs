//! Alerts, against a mail server that is not ours, and against servers that do not do as they should.

#![expect(clippy::unwrap_used, reason = "a test that can not be set up must fail")]

use anyhow::{Context as _, Result, ensure};
use lab::{Authority, Daemon, Lan, Need, Site, require};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NEEDS: [Need; 3] = [Need::Root, Need::Program("grub-mkimage"), Need::Program("aiosmtpd")];

/// A server of one kind, and what has arrived at it.
struct Sink {
    daemon: Daemon,
    log: PathBuf,
}

impl Sink {
    fn start(site: &Site, kind: &str, port: u16) -> Result<Self> {
        let folder = site.root().join("sinks");
        fs::create_dir_all(&folder)?;
        let log = folder.join(format!("{kind}.json"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/alerts.py");
        let mut command = site.lan().netns().command("/usr/bin/python3", Signal::SIGKILL);
        command.arg(script).args([kind, &port.to_string()]).arg(&log);
        command.args([folder.join("mail-cert.pem"), folder.join("mail-key.pem")]);
        let mut daemon = Daemon::start(kind, &mut command, &folder.join(format!("{kind}.log")))?;
        daemon.wait_for_log("ready", Duration::from_secs(20))?;
        Ok(Self { daemon, log })
    }

    fn arrived(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn wait_for(&self, n: usize) -> Result<Vec<Value>> {
        let end = Instant::now() + Duration::from_secs(90);
        while Instant::now() < end {
            let arrived = self.arrived();
            if arrived.len() >= n {
                return Ok(arrived);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        anyhow::bail!("{n} did not arrive, but {:?}", self.arrived())
    }
}

/// A site with certificates and secrets for its sinks; its servers have a name for them.
fn on_a_site(name: &str, test: impl FnOnce(&Site) -> Result<()>) {
    let run = || -> Result<()> {
        let site = Site::builder().create(Lan::lay(name)?)?;
        let folder = site.root().join("sinks");
        let authority = Authority::new("the authority of a school")?;
        authority.issue(&folder, "mail")?;
        authority.trust(&folder)?;
        for (file, secret) in
            [("password", "open-sesame"), ("wrong", "open-barley"), ("token", "abracadabra")]
        {
            fs::write(folder.join(file), format!("{secret}\n"))?;
        }
        test(&site)
    };
    run().unwrap_or_else(|error| panic!("{error:#}"));
}

fn mail(site: &Site, lines: &str) -> String {
    let folder = site.root().join("sinks");
    let folder = folder.display();
    format!(
        "[alerts.mail]\nfrom = \"Bootlace <bootlace@lab.test>\"\nca = \"{folder}/ca-cert.pem\"\n{lines}\n"
    )
}

fn account(site: &Site, password: &str) -> String {
    let file = site.root().join("sinks").join(password);
    format!("user = \"bootlace\"\npassword_file = \"{}\"", file.display())
}

fn configure(site: &Site, section: &str) -> Result<()> {
    let path = site.root().join("etc/bootlace/bootlace.toml");
    let text = fs::read_to_string(&path)?;
    let before = text.split("[alerts").next().unwrap_or_default();
    Ok(fs::write(&path, format!("{}\n{section}", before.trim_end()))?)
}

/// What `bootlace alert test` says with these settings, whether it succeeds or not.
fn attempt(site: &Site, section: &str) -> Result<(bool, String)> {
    configure(site, section)?;
    let mut command = site.lan().netns().command(lab::bootlace_binary()?, Signal::SIGKILL);
    let output = command.arg("--root").arg(site.root()).args(["alert", "test"]).output()?;
    let [out, error] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    Ok((output.status.success(), format!("{out}{error}")))
}

#[test]
fn a_test_message_says_at_which_step_it_fails() {
    let test = "a_test_message_says_at_which_step_it_fails";
    if !require(test, &NEEDS) {
        return;
    }
    on_a_site("alert-test", |site| {
        let sinks =
            [("mail", 2525), ("smtps", 2465), ("web", 2580), ("cut", 2526), ("endless", 2528)];
        let sinks: Vec<Sink> = sinks
            .into_iter()
            .map(|(kind, port)| Sink::start(site, kind, port))
            .collect::<Result<_>>()?;
        let hang = Sink::start(site, "hang", 2527)?;
        let right = account(site, "password");
        let to = "to = [\"admin@lab.test\"]";
        let good = mail(site, &format!("host = \"127.0.0.1\"\nport = 2525\n{to}\n{right}"));
        let sent = [
            good.clone(),
            mail(site, &format!("host = \"localhost\"\nport = 2465\ntls = \"tls\"\n{to}\n{right}")),
        ];
        for section in sent {
            let (is_sent, told) = attempt(site, &section)?;
            ensure!(is_sent && told.contains("sent"), "{told}\n{section}");
        }
        for sink in &sinks[..2] {
            let arrived = sink.wait_for(1)?;
            let subject = arrived[0]["subject"].as_str().unwrap_or_default();
            ensure!(subject.contains("test: alerts arrive"), "{arrived:?}");
            let headers = arrived[0]["headers"].to_string();
            ensure!(headers.contains("Auto-Submitted") && headers.contains("Date"), "{headers}");
        }
        let token = site.root().join("sinks/token");
        let hook = format!(
            "[alerts.webhook]\nurl = \"http://127.0.0.1:2580/hook\"\ntoken_file = \"{}\"\n",
            token.display()
        );
        let (is_sent, told) = attempt(site, &hook)?;
        ensure!(is_sent, "{told}");
        ensure!(sinks[2].wait_for(1)?[0]["text"].to_string().contains("test"), "no text");

        let with = |lines: &str| mail(site, &format!("{lines}\n{to}\n{right}"));
        let wrong = account(site, "wrong");
        let failures: &[(String, &str)] = &[
            (with("host = \"mail.invalid\""), "the address of mail.invalid can't be found"),
            (with("host = \"127.0.0.1\"\nport = 9"), "127.0.0.1:9 can't be connected to"),
            (good.replace("ca-cert.pem", "mail-cert.pem"), "no TLS with 127.0.0.1: "),
            (with("host = \"127.0.0.1\"\nport = 2525\ntls = \"tls\""), "no TLS with 127.0.0.1: "),
            (good.replace(&right, &wrong), "refuses the login as bootlace: "),
            (good.replace("sinks/password", "sinks/none"), "none can't be read: "),
            (good.replace("admin@", "nobody@"), "refuses the recipient nobody@lab.test: "),
            (good.replace(&right, ""), "refuses the sender bootlace@lab.test: "),
            (with("host = \"127.0.0.1\"\nport = 2526"), "does not answer as a mail server does"),
            (with("host = \"127.0.0.1\"\nport = 2527"), "no answer within 20 s"),
            (with("host = \"127.0.0.1\"\nport = 2528"), "it says more than any mail server does"),
            (with("host = \"127.0.0.1\"\nport = 2580"), "does not answer as a mail server does"),
            (hook.replace("sinks/token", "sinks/password"), "127.0.0.1 refuses what is sent: 401"),
            (hook.replace(":2580", ":2525"), "does not answer as a web server does"),
        ];
        for (section, why) in failures {
            let (is_sent, told) = attempt(site, section)?;
            ensure!(!is_sent && told.contains("NOT sent") && told.contains(why), "{why}:\n{told}");
            ensure!(!told.contains("open-") && !told.contains("abracadabra"), "a secret: {told}");
        }
        let both = good.replace("to = [", "to = [\"nobody@lab.test\", ");
        let (is_sent, told) = attempt(site, &both)?;
        let left_out = "mail to nobody@lab.test: NOT sent: ";
        ensure!(!is_sent && told.contains(left_out) && told.contains("mail to admin@"), "{told}");
        ensure!(!told.contains("nobody@lab.test, "), "it went to whom it did not go: {told}");
        ensure!(sinks[0].arrived().len() == 2, "who can be told must be told");
        hang.daemon.kill()?;
        sinks.into_iter().try_for_each(|sink| sink.daemon.kill())
    });
}

/// DHCP, pages and commands are the same whether the mail server hangs or not; a webhook tells that mail can't be sent, and
/// what was told once is not told again after a restart.
#[test]
fn findings_are_told_once_whatever_a_mail_server_does() {
    let test = "findings_are_told_once_whatever_a_mail_server_does";
    if !require(test, &[&NEEDS[..], &[Need::SlowTests]].concat()) {
        return;
    }
    on_a_site("alert-told", |site| {
        let web = Sink::start(site, "web", 2580)?;
        let hang = Sink::start(site, "hang", 2525)?;
        let to = "host = \"127.0.0.1\"\nport = 2525\nto = [\"admin@lab.test\"]";
        let token = site.root().join("sinks/token");
        let section = format!(
            "{}\n[alerts.webhook]\nurl = \"http://127.0.0.1:2580/\"\ntoken_file = \"{}\"\n",
            mail(site, &format!("{to}\n{}", account(site, "password"))),
            token.display()
        );
        configure(site, &section)?;
        let boot_server = site.serve()?;
        // Nobody has started the storage server.
        let arrived = web.wait_for(1)?;
        let kinds = arrived[0]["found"].to_string();
        ensure!(kinds.contains("storage-silent"), "{arrived:?}");
        ensure!(!arrived[0].to_string().contains("open-sesame"), "a secret");
        ensure!(!hang.wait_for(1)?.is_empty(), "the mail server was not asked");
        let began = Instant::now();
        let status = site.run(&["status"])?;
        ensure!(began.elapsed() < Duration::from_secs(3) && status.contains("storage"), "{status}");
        let figures = site.browser();
        ensure!(
            figures
                .get("/metrics")?
                .body
                .contains("bootlace_alerts_total{channel=\"webhook\",end=\"sent\"} 1"),
            "no figure"
        );
        let end = Instant::now() + Duration::from_secs(120);
        while !site.run(&["status", "--json"])?.contains("alerts-not-sent") {
            ensure!(Instant::now() < end, "it is no finding that nobody is told");
            std::thread::sleep(Duration::from_secs(2));
        }
        boot_server.stop()?;
        hang.daemon.kill()?;

        let mail = Sink::start(site, "mail", 2525)?;
        let boot_server = site.serve()?;
        let arrived = mail.wait_for(1)?;
        let body = arrived[0]["body"].as_str().context("no body")?;
        ensure!(body.contains("storage-silent"), "{body}");
        std::thread::sleep(Duration::from_secs(40));
        ensure!(mail.arrived().len() == 1, "{:?}", mail.arrived());
        let again: Vec<Value> = web.arrived().split_off(1);
        let is_told = |it: &Value| it["found"].to_string().contains("storage-silent");
        ensure!(!again.iter().any(is_told), "told again after a restart: {again:?}");
        boot_server.stop()?;
        mail.daemon.kill()?;
        web.daemon.kill()
    });
}
