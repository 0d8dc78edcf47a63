//! Pages for who is let in, as somebody in the network meets them.

use anyhow::{Context, Result, ensure};
use lab::{Browser, Lan, Need, Netns, SERVER, Site, require};
use nix::sys::signal::Signal;
use std::fs;

const PASSWORD: &str = "three blue doors";
const PC: &str = "10.77.0.50";

#[test]
fn pages_in_the_network_are_encrypted_and_for_who_is_let_in() {
    let needs = [Need::Root, Need::Program("grub-mkimage"), Need::Program("curl")];
    if require("accounts", &needs) {
        in_the_network().unwrap_or_else(|error| panic!("{error:#}"));
    }
}

fn in_the_network() -> Result<()> {
    let pages = format!("{SERVER}:8443");
    let site = Site::builder().pages(&pages).create(Lan::lay("accounts")?)?;
    let refused = site.serve().err().context("pages in the network, and nobody may log in")?;
    let why = format!("{refused:#}");
    ensure!(why.contains("there is no account of an administrator yet"), "{why}");
    site.add_user("anna", "admin", PASSWORD)?;
    site.add_user("vera", "viewer", PASSWORD)?;
    let servers = site.serve()?;

    let client = site.lan().add_client("accounts-pc", "52:54:00:00:00:01")?;
    client.netns().ip(&format!("addr add {PC}/24 dev eth0"))?;
    let plain = Browser::new(Some(client.netns()), &format!("http://{pages}"));
    let sent = plain.get("/machines")?;
    ensure!(sent.location == format!("https://{pages}/machines"), "plain HTTP: {sent:?}");
    let unknown = Browser::new(Some(client.netns()), &format!("https://{pages}")).get("/");
    ensure!(unknown.is_err(), "a browser took a certificate whose authority it does not know");

    let nobody = || site.stranger_in(client.netns());
    let status = |path: &str| nobody().get(path).map(|answer| answer.status);
    ensure!(status("/healthz")? == 200);
    for path in ["/api/v1/machines", "/api/v1/status", "/metrics", "/api/v1/audit"] {
        ensure!(status(path)? == 401, "{path}: {}", status(path)?);
    }
    let sent = nobody().get("/machines")?;
    ensure!(sent.location == format!("https://{pages}/login?next=/machines"), "{sent:?}");

    let anna = nobody().with_cookies()?;
    let form = |name, password| [("name", name), ("password", password), ("next", "/machines")];
    let wrong = anna.post("/login", &form("anna", "two blue doors"))?;
    ensure!(wrong.status == 401 && anna.get("/machines")?.status == 303, "{wrong:?}");
    let right = anna.post("/login", &form("anna", PASSWORD))?;
    ensure!(right.location == format!("https://{pages}/machines"), "{right:?}");
    ensure!(anna.get("/machines")?.status == 200);
    let cookies = anna.cookies()?;
    let cookie =
        cookies.lines().find(|line| line.contains("__Host-session")).context("no cookie")?;
    // For this host alone, below all paths, over TLS alone; not for scripts.
    ensure!(cookie.starts_with(&format!("#HttpOnly_{SERVER}\tFALSE\t/\tTRUE\t")), "{cookie:?}");
    let added = anna.post(
        "/users",
        &[("name", "tom"), ("role", "teacher"), ("password", PASSWORD), ("rooms", "all")],
    )?;
    ensure!(added.status == 303, "{added:?}");

    let vera = nobody().with_cookies()?;
    vera.post("/login", &form("vera", PASSWORD))?;
    ensure!(vera.get("/machines")?.status == 200 && vera.get("/audit")?.status == 403);
    let refused =
        vera.post("/users", &[("name", "eve"), ("role", "admin"), ("password", PASSWORD)])?;
    ensure!(refused.status == 403, "{refused:?}");

    let log = site.run(&["audit"])?;
    ensure!(log.contains("anna (page, 10.77.0.") && log.contains("user.add  tom"), "{log}");
    ensure!(!log.contains("eve"), "{log}");
    anna.post("/logout", &[])?;
    ensure!(anna.get("/machines")?.status == 303, "a session goes on after the logout");
    watch_from(client.netns(), &site, &pages)?;
    servers.stop()?;
    // Nobody answers there any more.
    let (code, told) = check(client.netns(), &site, &pages)?;
    ensure!(code == Some(2) && told.contains("can't be connected to"), "{code:?}: {told}");
    Ok(())
}

/// Another host watches the site, by a token that only reads.
fn watch_from(netns: &Netns, site: &Site, pages: &str) -> Result<()> {
    let folder = site.root().join("watcher");
    fs::create_dir(&folder)?;
    let made = site.run(&["token", "add", "nagios", "--scope", "read"])?;
    let token = made.lines().next().context("no token")?;
    fs::write(folder.join("token"), format!("{token}\n"))?;
    fs::copy(site.root().join("var/lib/bootlace/web/authority.pem"), folder.join("ca.pem"))?;
    let (code, told) = check(netns, site, pages)?;
    // It is a site without machines, which may have findings.
    ensure!(matches!(code, Some(0..=2)) && told.contains("0 of 0 machines are up"), "{told}");
    ensure!(told.contains(" | failed=0;;;0;0"), "{told}");
    fs::write(folder.join("token"), "bl_wrong\n")?;
    let (code, told) = check(netns, site, pages)?;
    ensure!(code == Some(3) && told.contains("does not know the token"), "{code:?}: {told}");
    fs::write(folder.join("token"), format!("{token}\n"))?;
    Ok(())
}

/// The exit code of the check, and what it prints.
fn check(netns: &Netns, site: &Site, pages: &str) -> Result<(Option<i32>, String)> {
    let folder = site.root().join("watcher");
    let mut command = netns.command(lab::bootlace_binary()?, Signal::SIGKILL);
    // There is no Bootlace.
    command.arg("--root").arg(&folder).args(["nagios", "--url", &format!("https://{pages}")]);
    command.arg("--token-file").arg(folder.join("token")).arg("--ca").arg(folder.join("ca.pem"));
    let output = command.output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}
