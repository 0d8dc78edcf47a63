//! Pages for who is let in, as somebody in the network meets them.

use anyhow::{Context, Result, ensure};
use lab::{Browser, Lan, Need, SERVER, Site, require};

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
    let tom = [("name", "tom"), ("role", "teacher"), ("password", PASSWORD), ("rooms", "all")];
    let added = anna.post("/users", &tom)?;
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
    servers.stop()
}
